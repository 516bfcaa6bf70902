"""How often each fault comes, and when the sink is out: all of it from one seed."""

from __future__ import annotations

import dataclasses
from typing import Final

from tests.simulation.chance import Chance

MINUTE: Final = 60_000
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
#: The longest time for which nobody is reached.
OUTAGE_MAX: Final = 40 * HOUR

#: What becomes of a call, in the words of the stand-in's faults, and by what weight when a fault strikes.
CALL_FAULTS: Final = (
    (4, "drop"),
    (6, "commit_then_close"),
    (4, "commit_then_error"),
    (2, "error"),
    (2, "hang"),
    (3, "commit_then_hang"),
    (2, "commit_late"),
    (3, "rate_limit"),
    (2, "conflict"),
    (3, "unavailable"),
    (2, "refused_connection"),
    (1, "garbage"),
)
#: How all calls fail while the sink is out.
OUTAGES: Final = (
    (4, "refused_connection"),
    (3, "hang"),
    (3, "unavailable"),
    (3, "commit_then_error"),
    (3, "commit_then_close"),
    (2, "rate_limit"),
    (2, "drop"),
)


@dataclasses.dataclass(kw_only=True)
class Rates:
    """Once in so many calls, runs or days; 0 is never."""

    call: int = 12
    dropped: int = 400
    killed: int = 500
    twin: int = 6
    clock: int = 40
    silent_day: int = 15
    outage: int = 4

    def calm(self) -> None:
        """Let nothing go wrong any more."""
        for field in dataclasses.fields(self):
            setattr(self, field.name, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outage:
    """From `begin` to `end` (ms), every call, or one in `once_in`, fails in one way."""

    begin: int
    end: int
    kind: str
    once_in: int = 1
    #: Only what is sent fails; what is read is answered.
    writes_only: bool = False
    #: Nor are sums: only what is looked at before anything is sent.
    blind: bool = False


def outages(chance: Chance, rates: Rates, *, begin: int, end: int) -> list[Outage]:
    """Return the outages of a simulation: many short ones, some of a day and more."""
    found: list[Outage] = []
    at = begin
    while rates.outage and (at := at + chance.whole(HOUR, 2 * rates.outage * DAY)) < end:
        longest = chance.weighted(((6, 20 * MINUTE), (4, 5 * HOUR), (3, 26 * HOUR), (2, OUTAGE_MAX)))
        until = min(at + chance.whole(MINUTE, longest), end)
        kind = chance.weighted(OUTAGES)
        once_in, writes_only = chance.weighted(((3, 1), (1, 2), (1, 3))), chance.once_in(2)
        found.append(Outage(begin=at, end=until, kind=kind, once_in=once_in, writes_only=writes_only))
        at = until
    return found


def happens(chance: Chance, once_in: int) -> bool:
    """Whether a fault strikes now."""
    return once_in > 0 and chance.once_in(once_in)
