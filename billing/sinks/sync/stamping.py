"""Finds free minutes for what is planned together: no two increments of a customer and meter share one."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from billing.sinks.sync import minutes
from billing.sinks.sync.log import Plan
from billing.sinks.sync.places import Place

#: Taken minutes that are looked at beside those that are wanted, per customer, meter and place: most often the latest
#: minute is free. Where these few leave too little room, more are.
TAKEN_FEW: Final = 16
TAKEN_MAX: Final = 2_000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """How many minutes a customer and meter needs in one place."""

    customer_id: str
    event_name: str
    place: Place
    count: int


def stamps(plan: Plan, wanted: Sequence[Wanted], now: datetime) -> list[list[datetime]]:
    """Return free minutes for each, the latest first: fewer than wanted where there are no more yet."""
    found: list[list[datetime]] = [[] for _ in wanted]
    given: dict[tuple[str, str], set[datetime]] = defaultdict(set)
    searched = [(place, span) for place, one in enumerate(wanted) if (span := _span(one.place, now)) is not None]
    few = TAKEN_FEW + max((one.count for one in wanted), default=0)
    for most in (min(few, TAKEN_MAX), TAKEN_MAX):
        asked = [(wanted[place].customer_id, wanted[place].event_name, last) for place, (_, last) in searched]
        again = []
        for (place, span), taken in zip(searched, plan.taken(asked, most=most) if asked else (), strict=True):
            one, (first, last) = wanted[place], span
            own = given[one.customer_id, one.event_name]
            # What lies before the earliest of them is not known to be free.
            cut = len(taken) >= most
            first = max(first, min(taken)) if cut else first
            free = minutes.free(last, first, taken | own, one.count - len(found[place]))
            own.update(free)
            found[place] += free
            if cut and len(found[place]) < one.count:
                again.append((place, span))
        searched = again
    return found


def keeps(place: Place, event_at: datetime, now: datetime) -> bool:
    """Whether a stamp that was given before is one that a place may have now."""
    span = _span(place, now)
    return span is not None and span[0] <= event_at <= span[1]


def _span(place: Place, now: datetime) -> tuple[datetime, datetime] | None:
    """Return the first and the last stamp of a place; what is no meter event may be older than a sink takes those."""
    last = minutes.latest(place.start, place.end, now)
    first = minutes.earliest(place.start, None if place.is_late else now - minutes.AGE_MAX)
    return None if last is None or last < first else (first, last)
