"""The log as one task sees it: each call takes its turn, and before and after each the task may be killed.

A plan's calls are inside its transaction: who dies in it leaves nothing behind, and who dies after its commit leaves
all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from tests.simulation.chance import Chance
from tests.simulation.faults import Killed
from tests.simulation.sync.chances import Rates, happens
from tests.simulation.sync.kernel import Kernel
from tests.simulation.sync.memory_log import MemoryLog
from tests.simulation.sync.memory_plan import MemoryPlan

#: How long a call to the database takes, in ms.
_CALL_MS: Final = 2


class Mortal:
    """Kills the task whose turn it is, now and then."""

    def __init__(self, kernel: Kernel, chance: Chance, rates: Rates) -> None:
        self.kernel, self._chance, self._rates = kernel, chance, rates
        self.killed = 0

    def perhaps_die(self) -> None:
        """Kill the present task once in so many steps."""
        task = self.kernel.current
        if task is not None and happens(self._chance, self._rates.killed):
            self.killed += 1
            task.is_killed = True
            raise Killed

    def step(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Make a call, with a chance to die before and after it."""
        self.perhaps_die()
        self.kernel.pause(_CALL_MS)
        found = call(*args, **kwargs)
        self.perhaps_die()
        self.kernel.pause(0)
        return found


class Wire:
    """A `MemoryLog` behind such steps."""

    def __init__(self, log: MemoryLog, mortal: Mortal) -> None:
        self._log, self._mortal = log, mortal

    def __getattr__(self, name: str) -> Any:
        """Return a method of the log, with its steps."""
        found = getattr(self._log, name)
        return lambda *args, **kwargs: self._mortal.step(found, *args, **kwargs)

    @contextmanager
    def planning(self, *, client_id: str | None = None) -> Iterator[Any]:
        """Begin a slice of a plan."""
        self._mortal.perhaps_die()
        self._mortal.kernel.pause(_CALL_MS)
        with self._log.planning(client_id=client_id) as plan:
            yield None if plan is None else _Steps(plan, self._mortal)
            self._mortal.perhaps_die()
        self._mortal.perhaps_die()
        self._mortal.kernel.pause(0)


class _Steps:
    """A `MemoryPlan` in whose middle the task may be killed."""

    def __init__(self, plan: MemoryPlan, mortal: Mortal) -> None:
        self._plan, self._mortal = plan, mortal

    def __getattr__(self, name: str) -> Any:
        """Return a method of the plan, with its steps."""
        found = getattr(self._plan, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._mortal.perhaps_die()
            self._mortal.kernel.pause(_CALL_MS)
            return found(*args, **kwargs)

        return call


class MortalSink:
    """A sink whose caller may be killed before and after each call."""

    def __init__(self, sink: Any, mortal: Mortal) -> None:
        self._sink, self._mortal = sink, mortal
        self.where: str = sink.where

    def __getattr__(self, name: str) -> Any:
        """Return a method of the sink, with its dangers."""
        found = getattr(self._sink, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._mortal.perhaps_die()
            answer = found(*args, **kwargs)
            self._mortal.perhaps_die()
            return answer

        return call
