"""Load on a fleet, beside what a test does: a bounded number of tasks waits at a time."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.fleet.harness import Fleet

_PAUSE_SECONDS = 0.1


@contextmanager
def busy(fleet: Fleet, client_ids: Sequence[str], *, waiting: int, units: Sequence[int] = (1,)) -> Iterator[None]:
    """Keep clients busy with tasks that record these units in turn, while about so many tasks of the fleet wait."""
    done = threading.Event()

    def charged() -> int:
        return len({row.correlation_id for row in fleet.rows()})

    def submit() -> None:
        numbers = itertools.cycle(units)
        sent, before = 0, charged()
        while not done.is_set():
            if sent - (charged() - before) < waiting:
                for client_id in client_ids:
                    fleet.app.tasks["lines"].apply_async((client_id, next(numbers)), ignore_result=True)
                    sent += 1
            else:
                done.wait(_PAUSE_SECONDS)

    stream = threading.Thread(target=submit, daemon=True)
    stream.start()
    try:
        yield
    finally:
        done.set()
        stream.join(60)
