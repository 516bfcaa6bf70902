"""A plan of a whole fleet, each of whose clients has used something: it grows with what is new, not with the history.

Two databases with the same clients and periods, one with a hundredth of the other's rollups, parts and increments, take
turns. A time counts only when each client has exactly one new increment per meter and period. `SYNC_CLIENTS` sets how
many clients there are.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Iterator
from typing import Final

import psycopg
import sqlalchemy

from benchmarks.rows import Row
from benchmarks.servers import Servers
from billing.connections import postgres
from billing.core.clock import SystemClock
from billing.core.settings import Settings
from billing.schema.migrate import migrate
from billing.sinks.sync.planning.planner import Planner, PlanRules
from billing.sinks.sync.postgres.log import PostgresLog

CLIENTS: Final = 100_000
CLIENTS_QUICK: Final = 2_000
#: Rollups of a client that are planned, and increments that carry them; the small history has a hundredth.
ROLLUPS: Final = 100
INCREMENTS: Final = 10
SMALLER: Final = 100
ROUNDS: Final = 2
METER: Final = "benchmark"
MARK: Final = 1.5
#: Longer than any plan here may take.
SECONDS: Final = 3_600.0

_CLIENTS: Final = """
INSERT INTO client (client_id, shard) SELECT 'client-' || number, 0 FROM generate_series(1, %(clients)s) AS number;
INSERT INTO stripe_customer (client_id, customer_id) SELECT client_id, 'cus_' || client_id FROM client;
INSERT INTO stripe_period (customer_id, event_name, period_start, period_end, closes_at, read_at)
SELECT customer_id, '%(meter)s', now() - interval '10 days', now() + interval '20 days', now() + interval '20 days',
       now()
FROM stripe_customer;
"""

#: All of it is planned and confirmed. The number of rows is spread evenly over clients.
_HISTORY: Final = """
INSERT INTO usage_rollup (client_id, sku, hour, credits, quantity, planned)
SELECT 'client-' || (1 + number %% %(clients)s), 'sku-1',
       date_trunc('hour', now()) - (2 + number / %(clients)s) * interval '1 hour', 10, 1, 10
FROM generate_series(0, %(rollups)s - 1) AS number;
INSERT INTO stripe_increment (client_id, customer_id, event_name, period_start, period_end, units, event_at, identifier,
                              state)
SELECT 'client-' || (1 + number %% %(clients)s), 'cus_client-' || (1 + number %% %(clients)s), '%(meter)s',
       now() - interval '10 days', now() + interval '20 days', 10,
       date_trunc('minute', now()) - (1 + number / %(clients)s) * interval '1 hour' + interval '30 seconds',
       'history-' || number, 'confirmed'
FROM generate_series(0, %(increments)s - 1) AS number;
INSERT INTO stripe_increment_part (increment_id, sku, hour, credits_from, credits_to)
SELECT increment_id, 'sku-1', date_trunc('hour', event_at), 0, 10 FROM stripe_increment;
"""

#: Each client uses two SKUs, this hour.
_USE: Final = sqlalchemy.text("""
INSERT INTO usage_rollup AS rollup (client_id, sku, hour, credits, quantity)
SELECT client_id, 'sku-' || number, date_trunc('hour', now()), 10, 1 FROM client, generate_series(1, 2) AS number
ON CONFLICT (client_id, sku, hour) DO UPDATE SET credits = rollup.credits + 10, quantity = rollup.quantity + 1
""")

_LAST: Final = sqlalchemy.text("SELECT coalesce(max(increment_id), 0) FROM stripe_increment")
_PLACES: Final = sqlalchemy.text("""
SELECT count(*) AS increments, count(DISTINCT (client_id, event_name, period_start)) AS places
FROM stripe_increment WHERE increment_id > :last
""")


class Side:
    """One history, and the planner that is timed on it."""

    def __init__(self, settings: Settings, *, clients: int, share: float) -> None:
        self.clients, self.share = clients, share
        _make(settings, clients=clients, share=share)
        self._engine = postgres.engine(settings)
        rules = PlanRules(meter=METER)
        self._planner = Planner(PostgresLog(self._engine), SystemClock(), rules)

    def plan(self) -> float:
        """Have each client use something, and return how long the plan of it took. Raises when one has not one."""
        with self._engine.begin() as connection:
            connection.execute(_USE)
            last = connection.execute(_LAST).scalar_one()
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sqlalchemy.text("VACUUM (ANALYZE) usage_rollup"))
        started = time.perf_counter()
        self._planner.plan(seconds=SECONDS)
        took = time.perf_counter() - started
        with self._engine.connect() as connection:
            made = connection.execute(_PLACES, {"last": last}).one()
        if (made.increments, made.places) != (self.clients, self.clients):
            message = f"{made.increments} increments in {made.places} places instead of one for {self.clients} clients"
            raise RuntimeError(message)
        return took

    def close(self) -> None:
        """Close what it asks with."""
        self._engine.dispose()


def rows(servers: Servers) -> list[Row]:
    """Make both histories, and measure."""
    clients = int(os.environ.get("SYNC_CLIENTS") or (CLIENTS_QUICK if servers.quick else CLIENTS))
    with contextlib.ExitStack() as stack:
        with servers.loading():
            small = stack.enter_context(_side(servers, "small", clients, 1 / SMALLER))
            large = stack.enter_context(_side(servers, "large", clients, 1.0))
        return measure(small, large, rounds=ROUNDS)


def measure(small: Side, large: Side, *, rounds: int) -> list[Row]:
    """Return the row: the median of the rounds' ratios; the first round warms up."""
    few, many = [], []
    for number in range(1 + rounds):
        # Who goes first finds the machine as the other left it.
        order = (small, large) if number % 2 else (large, small)
        took = {side: side.plan() for side in order}
        if number:
            few.append(took[small])
            many.append(took[large])
    ratio = statistics.median(all_ / part for part, all_ in zip(few, many, strict=True))
    against, whole = statistics.median(few), statistics.median(many)
    return [
        Row(
            name=f"plan of one sync, {large.clients:,} clients, {large.clients * ROLLUPS:,} rollups",
            value=ratio,
            unit="x the time",
            against=f"1 % of the history: {against:,.1f} s (all of it: {whole:,.1f} s)",
            mark=MARK,
            met=ratio <= MARK,
            raw={"seconds": many, "seconds_of_1_percent": few},
        )
    ]


def _make(settings: Settings, *, clients: int, share: float) -> None:
    given = {
        "clients": clients,
        "meter": METER,
        "rollups": round(clients * ROLLUPS * share),
        "increments": round(clients * INCREMENTS * share),
    }
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        for statements in (_CLIENTS, _HISTORY):
            connection.execute((statements % given).encode())
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


@contextlib.contextmanager
def _side(servers: Servers, name: str, clients: int, share: float) -> Iterator[Side]:
    settings = Settings(database_url=servers.fresh_database(f"sync_{name}"))
    migrate(settings)
    side = Side(settings, clients=clients, share=share)
    try:
        yield side
    finally:
        side.close()
        servers.drop_database(f"sync_{name}")
