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

#: Taken minutes that are looked at, per customer, meter and place, for a free one.
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
    spans = [_span(one.place, now) for one in wanted]
    asked = [
        (one.customer_id, one.event_name, span[1]) for one, span in zip(wanted, spans, strict=True) if span is not None
    ]
    taken = iter(plan.taken(asked, most=TAKEN_MAX)) if asked else iter(())
    given: dict[tuple[str, str], set[datetime]] = defaultdict(set)
    found: list[list[datetime]] = []
    for one, span in zip(wanted, spans, strict=True):
        if span is None:
            found.append([])
            continue
        first, last = span
        known = next(taken)
        if len(known) >= TAKEN_MAX:
            # What lies before the earliest of them is not known to be free.
            first = max(first, min(known))
        own = given[one.customer_id, one.event_name]
        free = minutes.free(last, first, known | own, one.count)
        own.update(free)
        found.append(free)
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
