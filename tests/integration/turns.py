"""A process that makes calls as fast as its turns come: `turns.py URL PER_SECOND CALLS`; prints when each began.

Times are of the system's monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from billing.connections import postgres
from billing.core.clock import SystemClock
from billing.core.settings import Settings
from billing.sinks.sync.calling.budget import EVENTS, PostgresBudget, await_turn

THREADS = 2


class LookedAt(SystemClock):
    """A clock that knows when each thread looked at it last: what comes after that look is not the turn's matter."""

    def __init__(self) -> None:
        self.seen = threading.local()

    def monotonic(self) -> float:
        """Return the time, and keep it."""
        self.seen.at = time.monotonic()
        return float(self.seen.at)


def main() -> None:
    """Take turns, in some threads."""
    url, per_second, calls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    budget = PostgresBudget(postgres.engine(Settings(database_url=url)), EVENTS, per_second=per_second)
    clock = LookedAt()

    def call(_: int) -> float:
        assert await_turn(budget, clock, time.sleep)
        return float(clock.seen.at)

    with ThreadPoolExecutor(THREADS) as pool:
        print(json.dumps(list(pool.map(call, range(calls)))))  # noqa: T201 - the test reads it


if __name__ == "__main__":
    main()
