"""Billing periods: which one an hour of usage belongs to, when each closes, what is kept of them. Pure.

Usage is known by the hour, periods to the second: an hour belongs to the period that begins in it. Periods of one
customer and meter do not overlap; between them, before the first and after the last there may be hours of none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
#: How long before a period closes its usage is due, if it is not over by then.
CLOSING: Final = timedelta(minutes=45)
#: Before the invoice may be final: no attempt begins then, so that the last one arrives in time.
CLOSING_MARGIN: Final = timedelta(minutes=10)


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

    `closes_at` is when its invoice may be final (None: it never is). After an `ended` period there is none: the
    subscription ends with it.
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
        return floor_hour(self.start)

    @property
    def usage_end(self) -> datetime:
        """The first hour of usage that does not.

        The hour in which a subscription ended is still its, unless another period begins in it.
        """
        if self.ended and floor_hour(self.end) != self.end:
            return floor_hour(self.end) + HOUR
        return floor_hour(self.end)

    def is_open(self, now: datetime) -> bool:
        """Whether what is sent for it now is on its invoice."""
        return self.closes_at is None or now < self.closes_at

    def is_closing(self, now: datetime) -> bool:
        """Whether it is over, or about to close, and what was used in it is due: it is not taken for long.

        What a subscription ends with closes before its end.
        """
        closes_at = self.closes_at
        return closes_at is not None and min(self.end, closes_at - CLOSING) <= now < closes_at


def floor_hour(instant: datetime) -> datetime:
    """Return the hour that an instant lies in."""
    return instant.replace(minute=0, second=0, microsecond=0)


def period_of(hour: datetime) -> Period:
    """Return the calendar's billing period of an hour of usage: the UTC month that it lies in."""
    start = hour.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = (start + timedelta(days=32)).replace(day=1)
    return Period(start=start, end=following)


def minute_of(instant: datetime) -> datetime:
    """Return the whole minute that an instant lies in: a sink's sums are of whole minutes.

    Of a period that begins within one, sums are taken from its start, since no increment of the period before it has a
    minute there.
    """
    return instant.replace(second=0, microsecond=0)


def closes_at(end: datetime, *, grace: timedelta, ended: bool = False) -> datetime:
    """Return from when on nothing is sent for a period: its invoice is final `grace` after its end.

    That of a subscription which ends is final at once.
    """
    return (end if ended else end + grace) - CLOSING_MARGIN


def calendar(hours: Iterable[datetime], *, grace: timedelta) -> list[KnownPeriod]:
    """Return the UTC months of some instants, the oldest first."""
    months = sorted({period_of(hour) for hour in hours})
    return [
        KnownPeriod(start=month.start, end=month.end, closes_at=closes_at(month.end, grace=grace)) for month in months
    ]


def known_period_of(hour: datetime, known: Sequence[KnownPeriod]) -> KnownPeriod | None:
    """Return the period that an hour of usage belongs to, of those of one customer and meter, the oldest first."""
    for period in reversed(known):
        if period.usage_start <= hour:
            return period if hour < period.usage_end else None
    return None


def merged(known: Sequence[KnownPeriod], found: Sequence[KnownPeriod], read_at: datetime) -> list[KnownPeriod]:
    """Return the periods of one customer and meter after what a sink said of them, the oldest first.

    What is found replaces what was known of the same start. What was known and is not named any more ends where the
    next one that was found begins; without one, it ended when this was read: its subscription is gone. What had ended
    by then stays as it was, to place late usage. What was thought to begin inside a period that was found is dropped.
    """
    names = sorted(found, key=lambda period: period.start)
    starts = {period.start for period in names}
    kept = []
    for old in known:
        if old.start in starts or any(new.start < old.start < new.end for new in names):
            continue
        follows = next((new for new in names if old.start < new.start < old.end), None)
        if follows is not None:
            early = None if old.closes_at is None else old.closes_at - (old.end - follows.start)
            kept.append(dataclasses.replace(old, end=follows.start, ended=False, closes_at=early))
        elif old.end > read_at and not any(new.start > old.start for new in names):
            if old.start < read_at:
                kept.append(dataclasses.replace(old, end=read_at, ended=True, closes_at=_earlier(old, read_at)))
        else:
            kept.append(old)
    return sorted([*kept, *names], key=lambda period: period.start)


def closing(
    start: datetime, closes: datetime | None, kept: Sequence[KnownPeriod], read_at: datetime
) -> datetime | None:
    """Return when an increment closes that was planned for the period from `start`, now that `kept` is known.

    Never later than before: who may send it after all plans it again. Its period is not known any more: at once.
    """
    if not kept:
        return closes
    period = next((one for one in kept if one.start == start), None)
    found = read_at if period is None else period.closes_at
    return min((one for one in (closes, found) if one is not None), default=None)


def _earlier(period: KnownPeriod, instant: datetime) -> datetime:
    return instant if period.closes_at is None else min(period.closes_at, instant)
