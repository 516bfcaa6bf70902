"""Which billing period an hour of usage belongs to, and which minutes of it an increment may carry. Pure.

An increment has a minute of its own per customer and meter, at second 30, away from both ends: the summary of that
minute then shows this increment and no other. Bounds are Stripe's: 35 days back, 5 minutes ahead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

MINUTE: Final = timedelta(minutes=1)
_SECOND: Final = timedelta(seconds=30)
#: A day less than Stripe's, so that what waits a day for Stripe to come back is still taken.
AGE_MAX: Final = timedelta(days=34)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Period:
    """What one invoice covers: [start, end)."""

    start: datetime
    end: datetime

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d} to {self.end:%Y-%m-%d}"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class KnownPeriod:
    """A billing period of one customer and meter, as the sink has it: `start` and `end` to the second.

    Usage is known by the hour: an hour belongs to the period that starts in it. `closes_at` is when its invoice may be
    final (None: it never is). After an `ended` period there is none: the subscription ends with it.
    """

    start: datetime
    end: datetime
    closes_at: datetime | None = None
    ended: bool = False
    #: What bills it at the sink, for people.
    subscription_id: str = ""

    @property
    def usage_start(self) -> datetime:
        """The first hour of usage that belongs to it."""
        return self.start.replace(minute=0, second=0, microsecond=0)

    @property
    def usage_end(self) -> datetime:
        """The first hour of usage that belongs to what follows."""
        return self.end.replace(minute=0, second=0, microsecond=0)


def period_of(hour: datetime) -> Period:
    """Return the billing period of an hour of usage: the UTC month that it lies in."""
    start = hour.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = (start + timedelta(days=32)).replace(day=1)
    return Period(start=start, end=following)


def latest_minute(period: Period, now: datetime) -> datetime | None:
    """Return the latest instant that an event of the period may have now, or None while there is none yet."""
    last = min(now - _SECOND, period.end - MINUTE)
    found = last.replace(second=0, microsecond=0) + _SECOND
    return found if found >= period.start else None


def free_minutes(latest: datetime, earliest: datetime, taken: Collection[datetime], count: int) -> list[datetime]:
    """Return at most `count` free instants from `latest` back to `earliest`, the latest first."""
    found: list[datetime] = []
    minute = latest
    while len(found) < count and minute >= earliest:
        if minute not in taken:
            found.append(minute)
        minute -= MINUTE
    return found


def is_too_old(period: Period, now: datetime) -> bool:
    """Whether Stripe takes no event of the period any more."""
    return period.end - MINUTE + _SECOND < now - AGE_MAX
