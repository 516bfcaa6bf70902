"""5,000 tasks through four prefork processes, of which one is SIGKILLed after every 400 tasks (L2, L3, L5)."""

from __future__ import annotations

import collections
import random
import signal
import time
from typing import Any

import celery
import psutil
import pytest
from celery import states

from tests.fleet.harness import Fleet
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1_200)]

TASKS = 5_000
CLIENTS = 5
#: Counted in tasks that have ended, so that a slow machine sees as many deaths as a fast one.
KILL_EVERY_TASKS = 400
#: Credits for 900 of the 1,000 tasks of each client: the ceiling is met while processes die.
CREDITS = 9_000


class Killer:
    """Kills a random prefork child of a worker each time that so many more tasks have ended."""

    def __init__(self, worker_pid: int, seed: int) -> None:
        self._worker = psutil.Process(worker_pid)
        self._random = random.Random(seed)
        self.killed = 0

    def look(self, ended: int) -> None:
        """Kill one if it is time."""
        children = self._worker.children() if ended // KILL_EVERY_TASKS > self.killed else []
        if children:
            self._random.choice(children).send_signal(signal.SIGKILL)
            self.killed += 1


def states_of(app: celery.Celery, ids: list[str]) -> collections.Counter[str]:
    """Return how many tasks are in each state, read in bulk."""
    backend: Any = app.backend
    found: collections.Counter[str] = collections.Counter()
    for start in range(0, len(ids), 500):
        for value in backend.mget([backend.get_key_for_task(task_id) for task_id in ids[start : start + 500]]):
            found[backend.decode_result(value)["status"] if value else states.PENDING] += 1
    return found


@pytest.fixture
def fleet_settings() -> dict[str, str]:
    """Return a lease that ends within the test."""
    return {"BILLING_LEASE_SECONDS": "6"}


@pytest.fixture
def killer(fleet: Fleet) -> Killer:
    """Worker with four processes, and what kills them."""
    fleet.consumer(wait=False)
    worker = fleet.worker(children=4)
    return Killer(worker.child_pid, seed=20_261_121)


def test_rows_equal_successes_and_no_hold_is_left(fleet: Fleet, killer: Killer) -> None:
    """Given a client's credits for nine tenths of its tasks, when processes die all the time, then the books agree."""
    clients = [fleet.client(f"client-{number}", CREDITS) for number in range(CLIENTS)]
    task = fleet.app.tasks["works"]
    with fleet.app.producer_or_acquire() as producer:
        sent = {
            task.apply_async((clients[n % CLIENTS],), producer=producer).id: clients[n % CLIENTS] for n in range(TASKS)
        }
    ids = list(sent)

    def all_ended() -> bool:
        count = sum(n for state, n in states_of(fleet.app, ids).items() if state in states.READY_STATES)
        if count < TASKS:
            killer.look(count)
        return count == TASKS

    started = time.monotonic()
    wait_until(all_ended, "every task ended", timeout_seconds=800)
    ended = states_of(fleet.app, ids)

    # Given quiescence: every hold is settled, released or expired within its lease and one sweep.
    wait_until(lambda: not any(fleet.holds(client) for client in clients), "no hold")
    successes = ended[states.SUCCESS]
    rows = fleet.wait_for_rows(successes)

    print(f"{killer.killed} kills in {time.monotonic() - started:.0f} s: {dict(ended)}, {len(rows)} rows")  # noqa: T201
    assert killer.killed >= 3
    assert sum(ended.values()) == TASKS
    assert len(rows) == len({row.correlation_id for row in rows}) == successes
    for client in clients:
        balance = fleet.balance(client)
        own = [row for row in rows if row.client_id == client]
        assert balance.spent == sum(row.credits for row in own) == 10 * len(own)
        assert (balance.held, balance.owed, balance.available) == (0, 0, CREDITS - balance.spent)
        assert len(own) <= CREDITS // 10
