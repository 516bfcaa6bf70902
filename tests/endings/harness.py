"""Runs cells in one place: all that share a worker at once, those with workers of their own a few at a time.

A cell is looked at until it has ended as it must, then once more when everything is quiet: the row that should not
come has had the time to come by then. A cell that does not end so is reported with what was seen instead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from celery import states

from billing.core.errors import Retryable
from billing.recovery.flush import Flush
from tests.endings import tasks
from tests.endings.books import Books, Seen, describe
from tests.endings.cell import EITHER, Cell, Looked
from tests.endings.combination import Combination
from tests.endings.monitor import UNSEEN, Monitor
from tests.endings.scene import Scene
from tests.fleet.fixtures import make_fleet
from tests.fleet.harness import Fleet
from tests.waiting import wait_until

#: Bounds a cell that does not end as it must.
LIMIT_SECONDS: Final = 120.0
_LOOK_SECONDS: Final = 0.3
_SHARED_AT_ONCE: Final = 16
#: Workers of their own cost a process or three each.
_ALONE_AT_ONCE: Final = 4
_CHILDREN: Final = 6
#: What Flower goes on showing of a task whose last events were lost.
_EARLIER: Final = frozenset({UNSEEN, states.RECEIVED, states.STARTED, states.RETRY})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a cell ended in a place, and what is wrong with that."""

    cell: Cell
    seen: Seen | None
    problems: Sequence[str]


def run(
    place: Combination,
    cells: Sequence[Cell],
    servers: Mapping[str, str],
    directory: Path,
    *,
    leases: int,
    say: Callable[[str], None] = lambda _: None,
) -> list[Outcome]:
    """Run cells in a place and return how each ended, in their order."""
    with make_fleet(servers, directory) as fleet, Monitor(fleet.settings.broker_url) as monitor:
        return _run(fleet, monitor, place, cells, leases, say)


def _run(
    fleet: Fleet,
    monitor: Monitor,
    place: Combination,
    cells: Sequence[Cell],
    leases: int,
    say: Callable[[str], None],
) -> list[Outcome]:
    """Run cells on a fleet; no result outlives this, which would unsubscribe when the backend is closed."""
    fleet.module = "tests.endings.worker"
    # Several threads send; each would have connections of its own otherwise.
    fleet.app.conf.result_backend_thread_safe = True
    tasks.add(fleet.app, fleet.directory)
    for cell in cells:
        fleet.client(cell.key, cell.grant)
    fleet.consumer(wait=False)
    fleet.worker("shared", children=_CHILDREN, pool=place.pool, options=("-E",))
    matrix = _Matrix(fleet, place, cells, monitor, leases=leases, say=say)
    matrix.drive()
    return matrix.judge()


class _Matrix:
    """The cells of one place while they run."""

    def __init__(
        self,
        fleet: Fleet,
        place: Combination,
        cells: Sequence[Cell],
        monitor: Monitor,
        *,
        leases: int,
        say: Callable[[str], None],
    ) -> None:
        sending = threading.Lock()
        self._fleet, self._place, self._say = fleet, place, say
        self._books = Books(fleet, monitor)
        self._scenes = [Scene(fleet, place, cell, monitor, sending, leases=leases) for cell in cells]
        self._driven: dict[str, Looked] = {}
        self._failed: dict[str, str] = {}

    def drive(self) -> None:
        """Drive all cells, and look until each has ended as it must, or did not in time."""
        with contextlib.ExitStack() as stack:
            alone = stack.enter_context(ThreadPoolExecutor(_ALONE_AT_ONCE, thread_name_prefix="alone"))
            shared = stack.enter_context(ThreadPoolExecutor(_SHARED_AT_ONCE, thread_name_prefix="shared"))
            drives = [(alone if scene.cell.alone else shared).submit(self._drive, scene) for scene in self._scenes]
            try:
                self._look(drives)
            finally:
                for scene in self._scenes:
                    scene.settled.set()

    def judge(self) -> list[Outcome]:
        """Wait until nothing is on its way any more, and say how each cell ended."""
        with contextlib.suppress(AssertionError):
            # What cannot become quiet shows in the cells.
            wait_until(self._is_quiet, "nothing is on its way", timeout_seconds=LIMIT_SECONDS / 5)
            list(Flush(self._fleet.runtime, time.sleep).arrived(range(self._fleet.settings.shards), outboxes=False))
        snapshot = self._books.read([scene.client for scene in self._scenes])
        found = []
        for scene in self._scenes:
            if (failed := self._failed.get(scene.client)) is not None:
                found.append(Outcome(cell=scene.cell, seen=None, problems=[failed]))
                continue
            looked = self._driven[scene.client]
            seen = self._books.seen(scene.client, looked, snapshot)
            problems = [*self._differences(scene.cell, seen), *self._raised(looked, seen)]
            found.append(Outcome(cell=scene.cell, seen=seen, problems=problems))
        return found

    def _drive(self, scene: Scene) -> None:
        try:
            self._driven[scene.client] = scene.cell.drive(scene)
            scene.settled.wait(LIMIT_SECONDS)
        except BaseException as error:  # noqa: BLE001 - it is this cell's, and said of it
            place = traceback.extract_tb(error.__traceback__)[-1]
            self._failed[scene.client] = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
        finally:
            scene.close()

    def _look(self, drives: Sequence[Future[None]]) -> None:
        since: dict[str, float] = {}
        clients = [scene.client for scene in self._scenes]
        while waiting := [s for s in self._scenes if not s.settled.is_set() and s.client not in self._failed]:
            time.sleep(_LOOK_SECONDS)
            driven = [scene for scene in waiting if scene.client in self._driven]
            if not driven:
                continue
            try:
                snapshot = self._books.read(clients)
            except Retryable:
                continue
            for scene in driven:
                first = since.setdefault(scene.client, time.monotonic())
                seen = self._books.seen(scene.client, self._driven[scene.client], snapshot)
                problems = self._differences(scene.cell, seen)
                if not problems or time.monotonic() - first > LIMIT_SECONDS:
                    self._say(f"{'NOT' if problems else 'ok'} {self._place}: {scene.cell.key}: {', '.join(problems)}")
                    scene.settled.set()
        for drive in drives:
            drive.result()

    def _differences(self, cell: Cell, seen: Seen) -> list[str]:
        """Return what is not as it must be."""
        expect = cell.expected_in(self._place)
        problems = [
            f"{name}: {getattr(seen, name)!r} instead of {getattr(expect, name)!r}"
            for name in ("rows", "caller")
            if getattr(seen, name) != getattr(expect, name)
        ]
        earlier = _EARLIER if cell.may_lose_events_in(self._place) else frozenset()
        if seen.flower != expect.flower and not {*seen.flower.split(", ")} <= {expect.flower} | earlier:
            problems.append(f"flower: {seen.flower!r} instead of {expect.flower!r}")
        if seen.hold not in EITHER.get(expect.hold, (expect.hold,)):
            problems.append(f"hold: {seen.hold} instead of {expect.hold}")
        balance, spent = seen.balance, sum(expect.rows)
        if balance is None:
            return [*problems, "the bucket is not there"]
        exact = (spent, 0, expect.owed, cell.grant + expect.owed - spent)
        found = (balance.spent, balance.held, balance.owed, balance.available)
        return problems if found == exact else [*problems, f"spent, held, owed, available: {found} instead of {exact}"]

    def _raised(self, looked: Looked, seen: Seen) -> list[str]:
        """Have the caller call `.get()` where it returns, and return what differs from the states that were seen."""
        found = set()
        for task_id in looked.results:
            result: Any = self._fleet.app.AsyncResult(task_id)
            if result.ready():
                try:
                    result.get(timeout=LIMIT_SECONDS)
                    raised: object = None
                except Exception as error:  # noqa: BLE001 - whatever the task ended with
                    raised = error
                found.add(describe(result.state, raised))
            else:
                found.add(result.state)
        got = ", ".join(sorted(found))
        return [] if not found or got == seen.caller else [f".get(): {got!r} instead of {seen.caller!r}"]

    def _is_quiet(self) -> bool:
        buckets = self._fleet.buckets
        return not any(
            buckets.outbox_depth(shard) or buckets.held(None, shard) for shard in range(self._fleet.settings.shards)
        )
