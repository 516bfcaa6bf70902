"""Feeding rows without servers: results in memory, a log that is told what it has, a fleet that the test plays."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import celery
import pytest
from celery import states

from billing.core.clock import SystemClock
from billing.core.errors import Fatal
from billing.workload.charges import Connection
from billing.workload.feed import CHUNK, STALL_SECONDS, Feed
from billing.workload.findings import rows_accounted
from billing.workload.identity import Identity
from billing.workload.replay import wait_for_worker
from billing.workload.results import backend_of
from billing.workload.row_task import ROW_TASK
from billing.workload.rows import Row
from billing.workload.tally import Account

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)


class Time:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        """Return always the same instant."""
        return NOW

    def monotonic(self) -> float:
        """Return the seconds that have passed."""
        return self.seconds


class Log:
    """Stands for the connection: knows some runs, and takes a while to say so."""

    def __init__(self, clock: Time, *, seconds: float = 0.0) -> None:
        self.runs: set[uuid.UUID] = set()
        self._clock, self._seconds = clock, seconds

    def execute(self, _query: object, parameters: Sequence[Sequence[uuid.UUID]]) -> list[tuple[uuid.UUID]]:
        """Return which of some runs there are."""
        self._clock.seconds += self._seconds
        return [(run_id,) for run_id in parameters[0] if run_id in self.runs]


class Fleet:
    """Ends tasks by storing their results."""

    def __init__(self) -> None:
        self.app = celery.Celery(broker="memory://", backend="cache+memory://", set_as_current=False)
        self.app.task(name=ROW_TASK, shared=False)(self._row)
        self.identity = Identity(digest=uuid.uuid4().hex, started_at=NOW)
        self.clock = Time()
        self.log = Log(self.clock)

    @staticmethod
    def _row(*_arguments: object) -> None:
        """Stand for the row task, which nobody runs here."""

    def end(self, line: int, error: Exception | None = None) -> None:
        """Store how the task of a line ended."""
        state = states.SUCCESS if error is None else states.FAILURE
        self.app.backend.store_result(self.identity.task_id(line), error or "", state)

    def feed(self, rows: Sequence[Row], look: Callable[[], None] = lambda: None, *, again: bool = True) -> Account:
        """Feed rows; a round in which nothing ends lasts a second."""

        def wait(_seconds: float) -> None:
            self.clock.seconds += 1.0

        feed = Feed(self.app, cast("Connection", self.log), self.identity, self.clock, again=again)
        return feed.run(iter(rows), look, wait)


def rows_of(count: int) -> list[Row]:
    """Return rows of one client."""
    return [Row(line=line, client_id="acme", sku="page", quantity=2) for line in range(2, 2 + count)]


def test_given_many_rows_that_the_log_has_when_started_again_then_asking_for_them_is_no_stall() -> None:
    """L9: the bound is on a fleet that ends nothing, not on how long a long recording takes to be looked up."""
    fleet, rows = Fleet(), rows_of(CHUNK * 6 + 1)
    fleet.log = Log(fleet.clock, seconds=STALL_SECONDS / 4)
    fleet.log.runs = {fleet.identity.run_id(row, fleet.identity.task_id(row.line)) for row in rows[:-1]}
    looks = []

    def look() -> None:
        looks.append(fleet.clock.seconds)
        if len(looks) > 10:
            fleet.end(rows[-1].line)

    account = fleet.feed(rows, look)
    assert (account.charged, account.known, account.complete) == (len(rows), len(rows) - 1, True)
    # Progress is shown while the log is asked, not only afterwards.
    assert looks[0] < STALL_SECONDS


def test_given_a_fleet_that_ends_nothing_when_rows_are_fed_then_it_is_given_up_with_one_line() -> None:
    fleet = Fleet()
    with pytest.raises(Fatal, match="3 rows wait and none has ended for 120 s"):
        fleet.feed(rows_of(3), again=False)
    assert STALL_SECONDS < fleet.clock.seconds < STALL_SECONDS + 5


def test_given_a_row_that_failed_when_started_again_then_it_is_tried_again_and_not_what_was_refused() -> None:
    """No row is left out: an old failure is not taken for what became of the new attempt."""
    fleet, rows = Fleet(), rows_of(3)
    fleet.end(2)
    fleet.end(3, type("InsufficientCredits", (Exception,), {})("none left"))
    fleet.end(4, ValueError("Redis was away"))
    looks: list[int] = []

    def look() -> None:
        looks.append(1)
        if len(looks) > 3:
            fleet.end(4)

    account = fleet.feed(rows, look)
    assert (account.charged, account.refused, account.failed, account.known) == (2, 1, 0, 2)
    assert rows_accounted(account).holds


def test_given_a_row_that_fails_when_the_feed_ends_then_the_account_does_not_hold() -> None:
    fleet = Fleet()
    account = fleet.feed(rows_of(1), lambda: fleet.end(2, ValueError("no")), again=False)
    assert (account.failed, account.complete) == (1, False)
    found = rows_accounted(account)
    assert not found.holds
    assert found.text.startswith("1 rows failed (started again, they are tried again)")


@pytest.mark.parametrize("backend", [None, "rpc://", "nothing://"])
def test_a_result_backend_that_cannot_be_asked_for_many_results_is_refused(backend: str | None) -> None:
    app = celery.Celery(broker="memory://", backend=backend, set_as_current=False)
    with pytest.raises(Fatal, match="result_backend: "):
        backend_of(app)


@pytest.mark.parametrize(
    ("queue", "tasks", "refused"),
    [
        ("celery", [ROW_TASK], None),
        ("celery", ["shop.other [rate_limit=1/s]", f"{ROW_TASK} [rate_limit=1/s]"], None),
        ("celery", ["shop.other", f"{ROW_TASK}s"], "knows recorded workloads"),
        ("celery", [], "knows recorded workloads"),
        ("maintenance", [ROW_TASK], "answers"),
    ],
)
def test_a_worker_is_one_that_serves_the_queue_and_knows_the_task(
    queue: str, tasks: list[str], refused: str | None
) -> None:
    """Any other would throw the rows away, and the replay would wait for them."""
    node = "worker1@here"
    inspect = SimpleNamespace(active_queues=lambda: {node: [{"name": queue}]}, registered=lambda: {node: tasks})
    control = SimpleNamespace(inspect=lambda **_: inspect)
    app: Any = SimpleNamespace(conf=SimpleNamespace(task_default_queue="celery"), control=control)
    if refused is None:
        wait_for_worker(app, SystemClock(), seconds=0.0)
        return
    with pytest.raises(Fatal, match=f"no worker of queue 'celery' {refused}"):
        wait_for_worker(app, SystemClock(), seconds=0.0)
