"""Triggers of a client's top-up, many at once; as a process: `triggering.py SETTINGS NOW CLIENT COUNT THREADS`.

The process says "ready", and begins when it is told to.
"""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from billing.core.settings import Settings
from billing.task.runtime import Runtime
from billing.top_ups.asking import TopUps
from billing.top_ups.looking import look, make_due
from tests.amqp import MovedClock

#: After so many triggers a thread does all that a worker does.
STEP_EVERY = 10


def trigger(settings: Settings, now: datetime, client_id: str, count: int, threads: int) -> None:
    """Trigger so often per thread, all at once: what an alert does, and then a worker's look."""
    together = threading.Barrier(threads)

    def one(_: int) -> None:
        runtime = Runtime(lambda: settings, MovedClock(at=now))
        top_ups = TopUps(runtime)
        together.wait()
        for number in range(count):
            make_due(runtime, [client_id])
            look(runtime)
            if number % STEP_EVERY == 0:
                top_ups.step()
        for _ in range(2):
            top_ups.step()
            top_ups.finish()
        runtime.close()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(threads)))


def main() -> None:
    """Trigger when told to."""
    settings = Settings(**json.loads(sys.argv[1]))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    trigger(settings, datetime.fromisoformat(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))


if __name__ == "__main__":
    main()
