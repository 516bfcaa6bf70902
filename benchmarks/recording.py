"""Other ways to write usage down, beside the fulfillment log: a batch of events each, over one connection, in turns.

`executemany` inserts the rows and commits once; a rollup per event adds each event to the client's sum of the hour and
commits it, as a task that records its own usage does. Ours writes the rows, all sums and what it refuses, and commits.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import psycopg

from benchmarks.one_row import INSERT, values
from benchmarks.rows import Row, alternated, alternative
from benchmarks.sample_events import sample_events
from benchmarks.servers import Servers
from billing.connections import postgres
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.fulfillment.delivery import Delivered
from billing.fulfillment.postgres_log import PostgresUsageLog
from billing.schema.migrate import migrate

EVENTS: Final = 500
CLIENTS: Final = 20
BATCHES: Final = 12
BATCHES_QUICK: Final = 3

_ROLLUP: Final = """
INSERT INTO plain_rollup AS rollup (client_id, sku, hour, credits, quantity)
VALUES (%(client_id)s, %(sku)s, date_trunc('hour', to_timestamp(%(occurred_at)s / 1000.0)), %(credits)s, %(quantity)s)
ON CONFLICT (client_id, sku, hour)
DO UPDATE SET credits = rollup.credits + excluded.credits, quantity = rollup.quantity + excluded.quantity
"""
LACKS: Final = {
    "executemany": "no sums, so no balance from PostgreSQL and nothing to invoice; one row that is refused stops the "
    "batch; a run whose content differs is not noticed",
    "rollup": "an event that is delivered again counts again; no rows, so no receipt; a client's events wait for "
    "each other",
}

#: Writes one batch: the events as they were delivered.
Write = Callable[[Sequence[Delivered]], object]


def rows(servers: Servers) -> list[Row]:
    """Measure both, and return how many times as fast ours is."""
    settings = Settings(database_url=servers.fresh_database("recording"))
    migrate(settings)
    clients = [f"client-{number}" for number in range(CLIENTS)]
    log = PostgresUsageLog(lambda: postgres.connect(settings), shards=settings.shards)
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        shards = [shard_of(client_id, settings.shards) for client_id in clients]
        connection.execute(
            "INSERT INTO client (client_id, shard) SELECT * FROM unnest(%s::text[], %s::int[])", [clients, shards]
        )
        connection.execute("CREATE TABLE plain (LIKE usage_history INCLUDING ALL)")
        connection.execute(
            "CREATE TABLE plain_rollup (client_id text, sku text, hour timestamptz, credits bigint, quantity bigint,"
            " PRIMARY KEY (client_id, sku, hour))"
        )
        seconds = take_turns(
            {"ours": log.write, "executemany": _executemany(connection), "rollup": _rollup(connection)},
            clients,
            BATCHES_QUICK if servers.quick else BATCHES,
        )
        _check(connection, 1 + len(seconds["ours"]))
    log.close()
    servers.drop_database("recording")
    return [
        _row("executemany, one commit for 500 events", "executemany", seconds),
        _row("UPDATE of a rollup, one commit per event", "rollup", seconds),
    ]


def take_turns(writes: dict[str, Write], clients: Sequence[str], batches: int) -> dict[str, list[float]]:
    """Return the seconds of each batch of each way, after one batch to warm up."""
    seeded = random.Random(4)
    seconds: dict[str, list[float]] = {name: [] for name in writes}
    for number in range(1 + batches):
        for name, write in alternated(writes.items(), number):
            events = sample_events(seeded, seeded.choices(clients, k=EVENTS))
            batch = [Delivered(body=msgspec.json.encode(event), queue="q", decoded=event) for event in events]
            started = time.perf_counter()
            write(batch)
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def _executemany(connection: psycopg.Connection[Any]) -> Write:
    def write(batch: Sequence[Delivered]) -> None:
        with connection.transaction(), connection.cursor() as cursor:
            cursor.executemany(INSERT, [values(one.body) for one in batch])

    return write


def _rollup(connection: psycopg.Connection[Any]) -> Write:
    def write(batch: Sequence[Delivered]) -> None:
        for one in batch:
            connection.execute(_ROLLUP, values(one.body))

    return write


def _row(name: str, way: str, seconds: dict[str, list[float]]) -> Row:
    ours = seconds["ours"]
    rate = EVENTS / statistics.median(ours)
    ratio = statistics.median(theirs / own for theirs, own in zip(seconds[way], ours, strict=True))
    return alternative(
        name,
        rate=rate / ratio,
        ours=rate,
        against="events, one connection, no broker",
        lacks=LACKS[way],
        raw={"seconds": seconds[way], "seconds_of_ours": ours, "events": EVENTS},
    )


def _check(connection: psycopg.Connection[Any], batches: int) -> None:
    """Before a figure is quoted: each way has written every event."""
    found = connection.execute(
        "SELECT (SELECT count(*) FROM usage_history), (SELECT count(*) FROM plain),"
        " (SELECT sum(quantity)::bigint FROM plain_rollup)"
    ).fetchone()
    if found != (batches * EVENTS,) * 3:
        raise RuntimeError(f"not every event was written: {found} of {batches * EVENTS}")
