"""Virtual time and tasks that take turns: every effect is a turn, so that any two tasks may meet anywhere.

Deterministic: one thread; who is due first goes first. A task is a greenlet, so that the project's own code, which
knows nothing of turns, stops in the middle of a call and goes on later. Whoever is killed never has another effect.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from datetime import datetime, timedelta

from greenlet import getcurrent, greenlet

from tests.simulation.chance import SimulatedClock
from tests.simulation.faults import Killed


class Task:
    """One run of a task in one process, with the threads that it has begun. `error` is how it ended, if not well."""

    def __init__(self, name: str, clock: MachineClock) -> None:
        self.name, self.clock = name, clock
        self.is_killed = False
        self.ended = False
        self.error: BaseException | None = None
        self.returned: object = None


class Kernel(SimulatedClock):
    """The clock, and what is due when."""

    def __init__(self) -> None:
        super().__init__()
        self._due: list[tuple[int, int, greenlet]] = []
        self._numbers = itertools.count()
        self._tasks: dict[greenlet, Task] = {}
        self._hub = getcurrent()
        self.turns = 0

    @property
    def current(self) -> Task | None:
        """The task whose turn it is; None between them."""
        return self._tasks.get(getcurrent())

    def spawn(self, task: Task, run: Callable[[], object], *, at_ms: int | None = None) -> None:
        """Begin a task, now or later."""

        def body() -> None:
            try:
                task.returned = run()
            except BaseException as error:  # noqa: BLE001 - as a process does, it ends; the world looks at how
                task.error = error
            finally:
                task.ended = True
                del self._tasks[getcurrent()]

        self.begin(body, task, at_ms=at_ms)

    def begin(self, body: Callable[[], None], task: Task, *, at_ms: int | None = None) -> None:
        """Begin a thread of a task."""
        made = greenlet(body, parent=self._hub)
        self._tasks[made] = task
        self._wake(made, self.ms if at_ms is None else at_ms)

    def pause(self, milliseconds: int) -> None:
        """Let others have their turns; raises `Killed` in whoever was killed meanwhile."""
        me = getcurrent()
        task = self._tasks.get(me)
        if task is None:
            return
        if task.is_killed:
            raise Killed
        self._wake(me, self.ms + milliseconds)
        self._hub.switch()
        if task.is_killed:
            raise Killed

    def linger(self, milliseconds: int) -> None:
        """Let others have their turns, as what is under way outside of any process: nothing kills it."""
        me = getcurrent()
        if me not in self._tasks:
            return
        self._wake(me, self.ms + milliseconds)
        self._hub.switch()

    def run_until(self, until_ms: int) -> None:
        """Let everything happen that is due before a moment, and go there."""
        while self._due and self._due[0][0] < until_ms:
            at, _, due = heapq.heappop(self._due)
            self.ms = max(self.ms, at)
            self.turns += 1
            due.switch()
        self.ms = max(self.ms, until_ms)

    def is_idle(self) -> bool:
        """Whether no task is under way."""
        return not self._due

    def _wake(self, who: greenlet, at_ms: int) -> None:
        heapq.heappush(self._due, (at_ms, next(self._numbers), who))


class MachineClock:
    """The clock of one machine, which may be wrong. Monotonic time is not touched."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.offset = timedelta()

    def now(self) -> datetime:
        """Return what this machine takes for the time."""
        return self._kernel.now() + self.offset

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._kernel.monotonic()


class Turns:
    """A lock for tasks that take turns: who does not get it lets the others go on."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._owner: greenlet | None = None
        self._depth = 0

    def __enter__(self) -> None:
        me = getcurrent()
        while self._owner not in (None, me):
            self._kernel.linger(1)
        self._owner, self._depth = me, self._depth + 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None
