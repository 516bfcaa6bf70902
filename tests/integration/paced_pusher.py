"""A pusher in a process of its own, at a rate: `paced_pusher.py DATABASE STRIPE PER_SECOND AT`; prints what it sent.

All its calls, reads too, come out of one budget. Its clock starts at the instant AT.
"""

from __future__ import annotations

import sys
import time
from datetime import datetime, timedelta

from billing.connections import postgres
from billing.core.clock import SystemClock
from billing.core.settings import Settings
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.keys import KeyKind
from billing.sinks.sync.calling.budget import EVENTS, PostgresBudget
from billing.sinks.sync.calling.pusher import THREADS, Pusher
from billing.sinks.sync.postgres.log import PostgresLog


class StartedClock(SystemClock):
    """A clock that starts at an instant, and goes on as time does."""

    def __init__(self, at: datetime) -> None:
        self._at, self._started = at, time.monotonic()

    def now(self) -> datetime:
        """Return the instant that it is by now."""
        return self._at + timedelta(seconds=time.monotonic() - self._started)


def main() -> None:
    """Push all there is."""
    settings = Settings(database_url=sys.argv[1], stripe_sandbox_url=sys.argv[2])
    engine = postgres.engine(settings, pool_size=THREADS)
    budget = PostgresBudget(engine, EVENTS, per_second=int(sys.argv[3]))
    clock = StartedClock(datetime.fromisoformat(sys.argv[4]))
    pusher = Pusher(
        PostgresLog(engine),
        clock,
        lambda: Gateway(settings),
        books=KeyKind.STAND_IN.value,
        events=budget,
        reads=budget,
    )
    report = pusher.push(most=10_000)
    print(report.sent, report.stopped)  # noqa: T201 - the test reads it


if __name__ == "__main__":
    main()
