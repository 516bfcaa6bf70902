"""What the model of an increment is made of: the world, with what may happen in it, and a scene, with all there is."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from billing.sinks.sink import Answer, Kind, Payload
from billing.sinks.sync.increment import Increment

BASE = datetime(2026, 3, 1, tzinfo=UTC)
HOUR, DAY = 60, 24 * 60
#: Within so many minutes of its beginning a call is executed, if ever.
LEASE = 2
UNITS = 7
BOOKS = "test"
#: Identifiers that one increment may be sent under.
GENERATIONS = 3
#: An invoice is final so long after `closes_at`.
FINAL_AFTER = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """What may happen. Times are minutes since the increment was planned."""

    marks: tuple[int, ...]
    #: Calls that are begun at most.
    calls: int = 2
    #: How many confirmers may be paused with a look, and whether already between finding what to look at and the look.
    confirmers: int = 1
    finds: bool = False
    #: How much later than it was received anything may show, and what the first generation brought.
    lag: int = DAY
    lag_of_first: int = DAY
    #: By how much the clock may be set back, once, at any time.
    set_back: int = 0
    #: When the first period closes (None: never), and how old the increment's minute is at first.
    closes: int | None = None
    event_age: int = 1
    writes_off: bool = False
    drops: bool = False
    refused_sums: bool = False
    person: bool = False

    @property
    def is_in_time(self) -> bool:
        """Whether sums are never later than the protocol takes them to be."""
        return max(self.lag, self.lag_of_first) <= DAY


class Call(NamedTuple):
    """One call of a pusher, which has yet to note its answer. One that it never notes is of a pusher that has died."""

    attempt: int
    generation: int
    event_at: datetime
    begun: int
    doubted: bool
    answer: Answer = Answer.UNREACHED


class Event(NamedTuple):
    """What the sink has received. What is dropped, or withdrawn, is not counted."""

    generation: int
    event_at: datetime
    received: int
    shows: bool = False
    dropped: bool = False


class Look(NamedTuple):
    """A confirmer that looked at `payload`: what was shown (None: it was refused), and when it began to look.

    `at` is None while it is yet to look.
    """

    payload: Payload
    at: datetime | None = None
    shown: int | None = None


class Scene(NamedTuple):
    """All there is. `afloat` calls may still be executed, though nobody waits for their answers."""

    increment: Increment
    mark: int = 0
    set_back: bool = False
    calls: tuple[Call, ...] = ()
    afloat: tuple[Call, ...] = ()
    events: tuple[Event, ...] = ()
    reports: frozenset[str] = frozenset()
    looks: tuple[Look, ...] = ()


Step = tuple[str, Scene]


def minutes(count: int) -> timedelta:
    """Return so many minutes."""
    return timedelta(minutes=count)


def planned(world: World) -> Increment:
    """Return it as it is planned."""
    closes_at = None if world.closes is None else BASE + minutes(world.closes)
    return Increment(
        increment_id=1,
        client_id="c",
        customer_id="cus",
        event_name="m",
        kind=Kind.METER_EVENT,
        period_start=BASE - minutes(50 * DAY),
        period_end=BASE,
        units=UNITS,
        credits_per_unit=1,
        generation=1,
        event_at=BASE - minutes(world.event_age),
        identifier="i1",
        planned_at=BASE,
        closes_at=closes_at,
    )


def counted(scene: Scene) -> int:
    """Return how many times the increment is counted at the sink."""
    return sum(not event.dropped for event in scene.events)


def clock(scene: Scene, world: World) -> datetime:
    """Return what the fleet takes the time to be."""
    return BASE + minutes(world.marks[scene.mark] - (world.set_back if scene.set_back else 0))
