"""The fleet's tasks of the sync: the project's own planner, pusher, confirmer and reports, each run on some machine."""

from __future__ import annotations

import collections
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from billing.core.errors import BillingError
from billing.core.settings import Settings
from billing.sinks.sink import MeterSink
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.period_reader import StripePeriods
from billing.sinks.sync.calling.confirmer import Confirmer
from billing.sinks.sync.calling.pusher import Pusher
from billing.sinks.sync.calling.reports import Reports
from billing.sinks.sync.increment import State
from billing.sinks.sync.log import IncrementLog
from billing.sinks.sync.planning.planner import Planner, PlanRules
from tests.simulation.faults import Killed
from tests.simulation.sync.kernel import MachineClock, Task
from tests.simulation.sync.server import URL, Transport
from tests.simulation.sync.wire import Mortal, MortalSink, Wire

if TYPE_CHECKING:
    from tests.simulation.sync.stage import Stage

MACHINES: Final = 3
#: The books that all of it goes to: the stand-in's.
BOOKS: Final = "stand-in"
#: As many as the setting `billing_stripe_push_batch` allows.
PUSH_MOST: Final = 10_000
CONFIRM_MOST: Final = 5_000
#: Nothing of these is under way: what is in them waits for a person, or for nobody.
SETTLED: Final = (State.CONFIRMED, State.WRITTEN_OFF, State.QUARANTINED, State.REJECTED)


class Fleet:
    """Begins tasks, and says whether anything is left to do."""

    def __init__(self, world: Stage) -> None:
        self._world = world
        self.clocks = [MachineClock(world.kernel) for _ in range(MACHINES)]
        self.mortal = Mortal(world.kernel, world.chance, world.rates)
        self.silent_until_ms = 0
        self.ended: collections.Counter[str] = collections.Counter()
        self.failures: list[BaseException] = []
        self._settings = Settings(stripe_sandbox_url=URL, stripe_meter="credits")
        self._wire = cast("IncrementLog", Wire(world.log, self.mortal))

    def begin(self, name: str, *, at_ms: int) -> Task:
        """Begin a task on one of the machines."""
        clock = self._world.chance.one_of(self.clocks)
        task = Task(name, clock)
        run: Callable[[MachineClock], object] = getattr(self, name)

        def body() -> object:
            try:
                return run(clock)
            except Killed:
                self.ended[f"{name}: killed"] += 1
            except BillingError as error:
                # As the tasks of beat do: logged, and mended by the next run.
                self.ended[f"{name}: {type(error).__name__}"] += 1
            except Exception as error:  # noqa: BLE001 - what no task may do; the auditor tells
                self.failures.append(error)
            return None

        self._world.kernel.spawn(task, body, at_ms=at_ms)
        return task

    def plan(self, clock: MachineClock) -> object:
        """Run a plan."""
        rules = self._rules()
        source = StripePeriods(self._settings, grace=rules.grace, http_client=Transport(self._world.server))
        return Planner(self._wire, clock, rules, source=source).plan()

    def close(self, clock: MachineClock) -> object:
        """Plan what was used in periods that are over."""
        return Planner(self._wire, clock, self._rules()).close()

    def push(self, clock: MachineClock) -> object:
        """Run a push, in one thread: pushes that overlap are what its threads would be."""
        pusher = Pusher(self._wire, clock, self._sink, books=BOOKS, threads=1, wait=self._wait, between=self._between)
        return pusher.push(most=PUSH_MOST)

    def confirm(self, clock: MachineClock) -> object:
        """Run the confirmer."""
        confirmer = Confirmer(self._wire, clock, self._sink, books=BOOKS, wait=self._wait)
        return confirmer.confirm(most=CONFIRM_MOST, seconds=600.0)

    def errors(self, clock: MachineClock) -> object:
        """Read error reports."""
        return Reports(self._wire, clock, self._sink, wait=self._wait).read()

    def set_a_clock(self, offset: timedelta) -> None:
        """Set the clock of a machine wrong."""
        self._world.chance.one_of(self.clocks).offset = offset

    def set_clocks_right(self) -> None:
        """Set all clocks right."""
        for clock in self.clocks:
            clock.offset = timedelta()

    def is_settled(self) -> bool:
        """Whether every increment has come to its end, or waits for a person."""
        log = self._world.log
        return not any(numbers for state, numbers in log.by_state.items() if state not in SETTLED)

    def _rules(self) -> PlanRules:
        size = self._world.size
        grace = timedelta(hours=size.grace_hours)
        return PlanRules(meter="credits", late_usage=size.late_usage, grace=grace)  # type: ignore[arg-type]

    def _sink(self) -> MeterSink:
        gateway = Gateway(self._settings, http_client=Transport(self._world.server))
        return cast("MeterSink", MortalSink(gateway, self.mortal))

    def _wait(self, seconds: float) -> Any:
        self._world.kernel.pause(round(seconds * 1_000))

    def _between(self, least: float, most: float) -> float:
        return self._world.chance.whole(round(least * 1_000), round(most * 1_000)) / 1_000
