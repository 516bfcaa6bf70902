"""Tasks through four prefork workers, of which a random process is SIGKILLed again and again (L1, L2, L3, L5).

`make kills` runs 10,000 tasks and kills one process each second for a minute; the suite kills by the count of tasks
that have ended, so that a slow machine sees as many deaths as a fast one.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import random
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest
from celery import states

from tests.chaos.killing import Killer
from tests.fleet.harness import Fleet
from tests.waiting import wait_until

SIZE_VARIABLE: Final = "KILLS_SIZE"
SEED_VARIABLE: Final = "KILLS_SEED"
CLIENTS: Final = 5
PRICE: Final = 10
#: How many results are read at once.
LOOK: Final = 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """How much work there is, and how many die of it."""

    tasks: int
    children: int
    kills: int
    #: One dies in each of these seconds; None: one dies whenever a share of the tasks has ended.
    seconds: float | None
    wait_seconds: float
    workers: int = 4

    @property
    def credits(self) -> int:
        """What each client has: enough for nine tenths of its tasks, so that the ceiling is met while processes die."""
        return PRICE * self.tasks // CLIENTS * 9 // 10


SMALL: Final = Size(tasks=2_500, children=1, kills=10, seconds=None, wait_seconds=800)
FULL: Final = Size(tasks=10_000, children=2, kills=60, seconds=1.0, wait_seconds=1_800)
SIZE: Final = {"small": SMALL, "full": FULL}[os.environ.get(SIZE_VARIABLE, "small")]

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(2 * SIZE.wait_seconds)]


class Work:
    """Tasks of some clients, sent in portions, and what has become of them."""

    def __init__(self, fleet: Fleet, clients: list[str]) -> None:
        self._fleet, self._clients = fleet, clients
        self.ids: list[str] = []
        self._running: list[str] = []

    def send(self, count: int) -> None:
        """Send tasks, of all clients by turns."""
        task, sent = self._fleet.app.tasks["works"], len(self.ids)
        with self._fleet.app.producer_or_acquire() as producer:
            for number in range(sent, sent + count):
                client_id = self._clients[number % len(self._clients)]
                self.ids.append(task.apply_async((client_id,), producer=producer).id)
        self._running += self.ids[sent:]

    def ended(self) -> int:
        """Return how many are known to have ended, having looked at the oldest of those that had not."""
        oldest, others = self._running[:LOOK], self._running[LOOK:]
        self._running = [key for key, state in self._states(oldest) if state not in states.READY_STATES] + others
        return len(self.ids) - len(self._running)

    def states(self) -> collections.Counter[str]:
        """Return how many are in which state now."""
        return collections.Counter(state for _, state in self._states(self.ids))

    def _states(self, ids: list[str]) -> Iterator[tuple[str, str]]:
        """Read states in bulk."""
        backend: Any = self._fleet.app.backend
        for start in range(0, len(ids), LOOK):
            part = ids[start : start + LOOK]
            values = backend.mget([backend.get_key_for_task(task_id) for task_id in part])
            for task_id, value in zip(part, values, strict=True):
                yield task_id, backend.decode_result(value)["status"] if value else states.PENDING


@pytest.fixture
def fleet_settings() -> dict[str, str]:
    """Return a lease that ends within the test."""
    return {"BILLING_LEASE_SECONDS": "6"}


@pytest.fixture
def killer(fleet: Fleet) -> Killer:
    """Start the workers, and what kills them."""
    given = os.environ.get(SEED_VARIABLE)
    seed = int(given) if given else random.SystemRandom().randrange(2**32) if SIZE is FULL else 20_261_121
    print(f"\n{SEED_VARIABLE}={seed}")  # noqa: T201
    fleet.consumer(wait=False)
    killer = Killer(fleet, workers=SIZE.workers, children=SIZE.children, seed=seed)
    for name in ("consumer", *killer.names):
        fleet.wait_ready(name)
    return killer


def kill_by_the_second(work: Work, killer: Killer, seconds: float) -> None:
    """Send a portion of the tasks, then kill one process, each so many seconds."""
    due = time.monotonic()
    for number in range(SIZE.kills):
        work.send((number + 1) * SIZE.tasks // SIZE.kills - len(work.ids))
        due += seconds
        wait_until(lambda: time.monotonic() >= due and killer.kill(), "one dies")  # noqa: B023 - called in this turn


def kill_by_the_count(work: Work, killer: Killer) -> None:
    """Send all tasks, and kill one process each time that so many more have ended."""
    work.send(SIZE.tasks)
    for number in range(1, SIZE.kills + 1):
        count = number * SIZE.tasks // (SIZE.kills + 1)
        wait_until(lambda: work.ended() >= count, f"{count} tasks ended", timeout_seconds=SIZE.wait_seconds)  # noqa: B023
        wait_until(killer.kill, "one dies")


def test_rows_equal_successes_and_no_hold_is_left(fleet: Fleet, killer: Killer) -> None:
    """Given credits for nine tenths of the tasks, when workers and children die all the time, then the books agree."""
    clients = [fleet.client(f"client-{number}", SIZE.credits) for number in range(CLIENTS)]
    work, started = Work(fleet, clients), time.monotonic()
    if SIZE.seconds is not None:
        kill_by_the_second(work, killer, SIZE.seconds)
    else:
        kill_by_the_count(work, killer)
    seconds, before = time.monotonic() - started, work.states()
    meanwhile = f"{sum(before[state] for state in states.READY_STATES)} ended in the {seconds:.0f} s of the kills"

    def all_ended() -> bool:
        killer.revive()
        return work.ended() == SIZE.tasks

    wait_until(all_ended, "every task ended", timeout_seconds=SIZE.wait_seconds)

    # Given quiescence: every hold is settled, released or expired within its lease and one sweep.
    wait_until(lambda: not any(fleet.holds(client) for client in clients), "no hold")
    ended = work.states()
    successes = ended[states.SUCCESS]
    rows = fleet.wait_for_rows(successes)

    late = sum(row.late for row in rows)
    print(  # noqa: T201
        f"{SIZE.tasks} tasks, {meanwhile}, all in {time.monotonic() - started:.0f} s; {dict(killer.killed)} killed; "
        f"{dict(ended)}, {len(rows)} rows, {late} late"
    )
    assert sum(killer.killed.values()) >= SIZE.kills * 9 // 10, killer.killed
    assert sum(ended.values()) == SIZE.tasks
    assert len(rows) == len({row.correlation_id for row in rows}) == successes
    for client in clients:
        balance = fleet.balance(client)
        own = [row for row in rows if row.client_id == client]
        assert balance.spent == sum(row.credits for row in own) == PRICE * len(own)
        assert (balance.held, balance.owed, balance.available) == (0, 0, SIZE.credits - balance.spent)
        assert len(own) <= SIZE.credits // PRICE
