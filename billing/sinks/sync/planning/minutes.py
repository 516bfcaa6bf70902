"""The minute that an increment is stamped with: one of its own per customer and meter, inside its period. Pure.

It is stamped at second 30, away from both ends: the sum of that minute at the sink then shows this increment and no
other. Bounds are Stripe's: 35 days back, 5 minutes ahead.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from billing.sinks.sync.planning.periods import MINUTE

_HALF: Final = timedelta(seconds=30)
#: A day less than Stripe's, so that what waits a day for Stripe to come back is still taken.
AGE_MAX: Final = timedelta(days=34)


def earliest(start: datetime, oldest: datetime | None = None) -> datetime:
    """Return the first stamp of a period, and not before `oldest`: its whole minute lies in the period."""
    found = _floor(start)
    found = found if found == start else found + MINUTE
    if oldest is not None and found + _HALF < oldest:
        found = _floor(oldest)
        found = found if found + _HALF >= oldest else found + MINUTE
    return found + _HALF


def latest(start: datetime, end: datetime, now: datetime) -> datetime | None:
    """Return the latest stamp that an event of the period [start, end) may have now, None while there is none yet."""
    found = min(_floor(now - _HALF), _floor(end) - MINUTE) + _HALF
    return found if found >= earliest(start) else None


def free(last: datetime, first: datetime, taken: Collection[datetime], count: int) -> list[datetime]:
    """Return at most `count` free stamps from `last` back to `first`, the latest first."""
    found: list[datetime] = []
    minute = last
    while len(found) < count and minute >= first:
        if minute not in taken:
            found.append(minute)
        minute -= MINUTE
    return found


def _floor(instant: datetime) -> datetime:
    return instant.replace(second=0, microsecond=0)
