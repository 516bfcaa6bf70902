"""What becomes of an increment that cannot be sent as it is: its next generation, elsewhere if it must be. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime

from billing.core.settings import StripeLateUsage
from billing.sinks.sink import Kind
from billing.sinks.sync import protocol
from billing.sinks.sync.increment import Increment, State
from billing.sinks.sync.planning.drafts import identifier
from billing.sinks.sync.planning.periods import KnownPeriod, floor_hour
from billing.sinks.sync.planning.places import Place, Places


def place_of(
    increment: Increment,
    *,
    first_hour: datetime,
    known: Sequence[KnownPeriod],
    late_usage: StripeLateUsage,
    now: datetime,
) -> Place | str:
    """Return where an increment goes now, by the periods of its client's present customer, or why it waits."""
    if increment.kind is Kind.INVOICE_ITEM:
        return Place(start=increment.period_start, end=increment.period_end, kind=Kind.INVOICE_ITEM)
    # A period that has not begun was chosen by a clock that was ahead.
    hour = max(first_hour, floor_hour(increment.period_start)) if increment.period_start <= now else first_hour
    return Places(known, late_usage=late_usage, now=now).of(hour)


def next_generation(
    increment: Increment, place: Place, *, customer_id: str, event_at: datetime, first_hour: datetime, now: datetime
) -> Increment:
    """Return an increment as it is to be in its new place: reissued, given up, or written off by the policy."""
    if place.written_off:
        return protocol.written_off(increment, place.reason)
    following = dataclasses.replace(
        increment,
        generation=increment.generation + 1,
        kind=place.kind,
        customer_id=customer_id,
        period_start=place.start,
        period_end=place.end,
        event_at=event_at,
    )
    return protocol.reissued(
        increment,
        kind=place.kind,
        customer_id=customer_id,
        period_start=place.start,
        period_end=place.end,
        closes_at=place.closes_at,
        event_at=event_at,
        carries_from=first_hour if first_hour < floor_hour(place.start) else None,
        identifier=identifier(following),
        reason=_why(increment, place, now),
    )


def waiting(increment: Increment, reason: str) -> Increment | None:
    """Return an increment with why it waits, or None when it says so already."""
    said = f"it cannot be planned anew yet: {reason}"
    return None if increment.reason == said else dataclasses.replace(increment, reason=said)


def _why(increment: Increment, place: Place, now: datetime) -> str:
    if protocol.is_ahead(increment, now):
        return "it was planned by a clock that was ahead"
    if increment.state is State.AMBIGUOUS:
        return "nothing of it has arrived: every look at its minute for a day has found nothing"
    if place.start == increment.period_start and place.kind is increment.kind and increment.reason:
        return increment.reason  # of whoever closed it before its period did
    return "its period closed before it was sent"
