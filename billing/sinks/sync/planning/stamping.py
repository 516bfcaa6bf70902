"""Finds free minutes for what is planned together: no two increments of a customer and meter share one."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from billing.sinks.sync.increment import Increment
from billing.sinks.sync.log import Plan
from billing.sinks.sync.planning import minutes, reissuing
from billing.sinks.sync.planning.drafts import Draft, Planned, increment_of
from billing.sinks.sync.planning.places import Place

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


def stamped(plan: Plan, drafts: Sequence[Draft], now: datetime) -> tuple[list[Planned], list[Draft]]:
    """Give each draft a minute of its own; return also those for which there is none yet."""
    groups: dict[tuple[str, str, Place], list[Draft]] = defaultdict(list)
    for draft in drafts:
        groups[draft.customer_id, draft.event_name, draft.place].append(draft)
    wanted = [
        Wanted(customer_id=customer, event_name=event, place=place, count=len(group))
        for (customer, event, place), group in groups.items()
    ]
    planned: list[Planned] = []
    postponed: list[Draft] = []
    for group, found in zip(groups.values(), stamps(plan, wanted, now), strict=True):
        for draft, at in zip(group, found, strict=False):
            planned.append(Planned(draft=draft, increment=increment_of(draft, event_at=at, planned_at=now)))
        postponed += group[len(found) :]
    return planned, postponed


def moved(plan: Plan, moving: Sequence[tuple[Increment, Place, str, datetime]], now: datetime) -> list[Increment]:
    """Return increments in their new places; those that find no free minute there stay as they are."""

    def stays(increment: Increment, place: Place, customer_id: str) -> bool:
        return place.written_off or (customer_id == increment.customer_id and keeps(place, increment.event_at, now))

    wanted = [
        Wanted(customer_id=customer_id, event_name=increment.event_name, place=place, count=1)
        for increment, place, customer_id, _ in moving
        if not stays(increment, place, customer_id)
    ]
    found = iter(stamps(plan, wanted, now))
    changed = []
    for increment, place, customer_id, first_hour in moving:
        free = [increment.event_at] if stays(increment, place, customer_id) else next(found)
        if free:
            changed.append(
                reissuing.next_generation(
                    increment, place, customer_id=customer_id, event_at=free[0], first_hour=first_hour, now=now
                )
            )
    return changed


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
