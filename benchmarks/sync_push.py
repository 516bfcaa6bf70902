"""The rate of calls to Stripe: how much of `billing_stripe_calls_per_second` two pushers use, and how much at most.

Two processes push one increment for each of some clients to the stand-in. What counts is when each call begins: the
rate from the first to the last, and the most in any second, over what is set.
"""

from __future__ import annotations

import bisect
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final

import sqlalchemy

from benchmarks.rows import Row
from benchmarks.servers import Servers
from billing.catalog.clients import add_client
from billing.connections import postgres
from billing.core.clock import SystemClock
from billing.core.settings import Settings
from billing.schema.migrate import migrate
from billing.sinks.sink import Payload, Reply
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.keys import KeyKind
from billing.sinks.stripe.links import link
from billing.sinks.stripe.sandbox.control import SandboxControl
from billing.sinks.sync.calling.budget import EVENTS, READS, READS_PER_SECOND, PostgresBudget
from billing.sinks.sync.calling.pusher import THREADS, Pusher
from billing.sinks.sync.planning.planner import Planner, PlanRules
from billing.sinks.sync.postgres.log import PostgresLog

#: Settings that are measured: the default, and what a sandbox would refuse.
RATES: Final = (20, 50)
SECONDS: Final = 20
SECONDS_QUICK: Final = 4
PROCESSES: Final = 2
MARK: Final = 0.9

_USE: Final = sqlalchemy.text("""
INSERT INTO usage_rollup (client_id, sku, hour, credits, quantity)
SELECT client_id, 'page', date_trunc('hour', now()), 10, 1 FROM client
""")


def rows(servers: Servers) -> Sequence[Row]:
    """Measure each rate."""
    seconds = SECONDS_QUICK if servers.quick else SECONDS
    return [row for rate in RATES for row in _measured(servers, rate, rate * seconds)]


def _measured(servers: Servers, rate: int, calls: int) -> Iterator[Row]:
    settings = Settings(
        database_url=servers.fresh_database(f"sync_push_{rate}"),
        stripe_sandbox_url=servers.endpoints.stripe_sandbox_url,
        stripe_calls_per_second=rate,
    )
    _prepare(settings, calls)
    command = [sys.executable, "-m", "benchmarks.sync_push"]
    given = [settings.database_url, settings.stripe_sandbox_url, str(rate)]
    processes = [subprocess.Popen([*command, *given], stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)]
    began = sorted(at for process in processes for at in json.loads(process.communicate(timeout=600)[0]))
    if len(began) != calls:
        message = f"{len(began)} calls were made, for {calls} increments"
        raise AssertionError(message)
    reached = (calls - 1) / (began[-1] - began[0]) / rate
    most = max(bisect.bisect_left(began, at + 1.0) - place for place, at in enumerate(began)) / rate
    against = f"billing_stripe_calls_per_second = {rate}, {PROCESSES} processes"
    raw = {"calls": calls, "seconds": began[-1] - began[0]}
    yield Row(
        name="usage events sent to Stripe",
        value=reached,
        unit="x the rate",
        against=against,
        mark=MARK,
        met=reached >= MARK,
        raw=raw,
    )
    yield Row(
        name="most of them in any second",
        value=most,
        unit="x the rate",
        against=against,
        mark=1.0,
        met=most <= 1.0,
        raw=raw,
    )


def _prepare(settings: Settings, clients: int) -> None:
    migrate(settings)
    with SandboxControl(settings.stripe_sandbox_url) as control:
        control.reset()
        control.set_time(int(time.time()))
    with Gateway(settings) as gateway:
        gateway.setup()
    engine = postgres.engine(settings)
    with engine.begin() as connection:
        for number in range(clients):
            add_client(connection, f"client-{number:05}", settings.shards)
            link(connection, f"client-{number:05}", f"cus_{number}")
        connection.execute(_USE)
    Planner(PostgresLog(engine), SystemClock(), PlanRules(meter=settings.stripe_meter, calendar=True)).plan()
    engine.dispose()


class _Timed(Gateway):
    """A gateway that notes when each call begins."""

    began: Final[list[float]] = []

    def send(self, payload: Payload, *, idempotency_key: str) -> Reply:
        """Note it, and send."""
        self.began.append(time.monotonic())
        return super().send(payload, idempotency_key=idempotency_key)


def main() -> None:
    """Push, as one of the processes; print when each call began, on the clock that all processes share."""
    rate = int(sys.argv[3])
    settings = Settings(database_url=sys.argv[1], stripe_sandbox_url=sys.argv[2])
    engine = postgres.engine(settings, pool_size=THREADS)
    pusher = Pusher(
        PostgresLog(engine),
        SystemClock(),
        lambda: _Timed(settings),
        books=KeyKind.STAND_IN.value,
        events=PostgresBudget(engine, EVENTS, per_second=rate),
        reads=PostgresBudget(engine, READS, per_second=READS_PER_SECOND),
    )
    while pusher.push(most=10_000).sent:
        pass
    print(json.dumps(_Timed.began))


if __name__ == "__main__":
    main()
