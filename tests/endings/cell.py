"""A cell of the matrix: one way in which a task ends, and what must be so when all is quiet again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Final

from tests.endings.combination import Broker, Combination, Pool, Version

if TYPE_CHECKING:
    from tests.endings.scene import Scene


class Hold(Enum):
    """What became of the credits that were held. None is left in any case."""

    NEVER = "none was made"
    CHARGED = "charged"
    #: Without success, when the delivery ended.
    RETURNED = "given back at once"
    #: Several runs, or several deliveries of one.
    CHARGED_AND_RETURNED = "charged; given back at once by what did not succeed"
    LAPSED = "given back within lease + sweep"
    CHARGED_BY_REAPER = "charged within lease + sweep"
    #: A delivery that is cut short gives its hold back, unless its process is gone before it can.
    CHARGED_AFTER_CUT = "charged; a delivery that is cut short may give it back"
    CHARGED_AFTER_LAPSE = "given back within lease + sweep; charged when the run succeeds later"


#: What may be seen of a hold of which chance has a say.
EITHER: Final = {Hold.CHARGED_AFTER_CUT: (Hold.CHARGED, Hold.CHARGED_AND_RETURNED)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expected:
    """The end of a cell, and the same for what was seen."""

    #: The credits of each row of the usage history, sorted.
    rows: tuple[int, ...] = (10,)
    hold: Hold = Hold.CHARGED
    #: The state of the result that the caller has, and the class of what `.get()` raises.
    caller: str = "SUCCESS"
    #: The states of the tasks as `celery.events.state.State`, which Flower keeps, has them.
    flower: str = "SUCCESS"
    #: What the client owes in the end.
    owed: int = 0


def nothing(caller: str, flower: str, hold: Hold = Hold.RETURNED) -> Expected:
    """Return an end without a charge."""
    return Expected(rows=(), hold=hold, caller=caller, flower=flower)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Otherwise:
    """Another end in some places, and why. Empty: in every one."""

    why: str
    expect: Expected
    versions: Sequence[Version] = ()
    pools: Sequence[Pool] = ()
    brokers: Sequence[Broker] = ()

    def holds_in(self, place: Combination) -> bool:
        """Whether it is meant for this place."""
        return (
            (not self.versions or place.version in self.versions)
            and (not self.pools or place.pool in self.pools)
            and (not self.brokers or place.broker in self.brokers)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Looked:
    """Where a cell's end is looked for: results of the caller, and tasks in Flower (the same where none are named)."""

    results: Sequence[str] = ()
    flower: Sequence[str] | None = None
    #: What the caller sees where there is no result to ask for: a call that ends in the caller's own process.
    caller: str | None = None


#: Drives an ending and returns where to look. What it raises fails the cell.
Drive = Callable[["Scene"], Looked]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One ending."""

    key: str
    #: As the document's line says it.
    ending: str
    drive: Drive
    expect: Expected
    otherwise: Sequence[Otherwise] = ()
    #: The client's grant.
    grant: int = 100
    #: Brings workers of its own, on a queue of its own: it kills or stops them, or keeps them busy for long.
    alone: bool = False
    #: Why it cannot be in a pool.
    unfit: Mapping[Pool, str] = dataclasses.field(default_factory=dict)
    #: Runs over the Redis transport too.
    core: bool = False
    #: What else was measured of it, and is good to know.
    remark: str = ""
    #: Pools whose workers may lose the events of this ending, with the connection that they would go over.
    loses_events: Sequence[Pool] = ()
    #: Is of the part that `make test` runs.
    quick: bool = False

    def expected_in(self, place: Combination) -> Expected:
        """Return the end that it must have in a place: the first that is meant for it."""
        return next((other.expect for other in self.otherwise if other.holds_in(place)), self.expect)

    def is_planned(self, place: Combination) -> bool:
        """Whether a full run looks at it in this place: it runs there, or says why it cannot."""
        return self.core or place.broker == "RabbitMQ"

    def runs_in(self, place: Combination) -> bool:
        """Whether it runs there."""
        return self.is_planned(place) and place.pool not in self.unfit

    def may_lose_events_in(self, place: Combination) -> bool:
        """Whether Flower may go on showing an earlier state there."""
        return place.loses_events or place.pool in self.loses_events


NO_CHILDREN: Final = "a run has no process of its own"
