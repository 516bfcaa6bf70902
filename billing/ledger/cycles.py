"""When the periods of an allowance begin, and until when each one's grant lasts. Pure; all in UTC.

Period n begins n months, weeks or days after the start, by the calendar: what starts on the 31st begins on the last day
of a shorter month, and on the 31st again afterwards. It refuses starts and ends that no calendar needs.
"""

from __future__ import annotations

import calendar
import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from billing.core.errors import InvalidValue

EVERY: Final = ("day", "week", "month")
#: Periods that a grant may outlive its own by (L9).
ROLLOVER_MAX: Final = 60
_FIRST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(2200, 1, 1, tzinfo=UTC)
_DAYS: Final = {"day": 1, "week": 7}
_MONTHS_PER_YEAR: Final = 12


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Period:
    """One period, and the instant at which its grant expires; None for never."""

    number: int
    starts_at: datetime
    expires_at: datetime | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cycle:
    """What repeats: a start, a length, perhaps an end, at and after which no period begins.

    `rollover`: for how many further periods what is left of a grant stays usable; None for ever, 0 not at all.
    """

    every: str
    starts_at: datetime
    ends_at: datetime | None = None
    rollover: int | None = 0

    def __str__(self) -> str:
        until = "" if self.ends_at is None else f" until {self.ends_at.isoformat()}"
        said = {None: "rolled over for ever", 0: "not rolled over", 1: "rolled over once"}
        rollover = said.get(self.rollover, f"rolled over {self.rollover} times")
        return f"each {self.every} from {self.starts_at.isoformat()}{until}, {rollover}"

    def start_of(self, number: int) -> datetime:
        """Return the instant at which a period begins."""
        if self.every in _DAYS:
            return self.starts_at + timedelta(days=number * _DAYS[self.every])
        years, month = divmod(self.starts_at.month - 1 + number, _MONTHS_PER_YEAR)
        year = self.starts_at.year + years
        last_day = calendar.monthrange(year, month + 1)[1]
        return self.starts_at.replace(year=year, month=month + 1, day=min(self.starts_at.day, last_day))

    def number_at(self, instant: datetime) -> int:
        """Return the number of the period that an instant lies in; below 0 before the start."""
        if self.every in _DAYS:
            return (instant - self.starts_at) // timedelta(days=_DAYS[self.every])
        months = (instant.year - self.starts_at.year) * _MONTHS_PER_YEAR + instant.month - self.starts_at.month
        return months if self.start_of(months) <= instant else months - 1

    def period(self, number: int) -> Period:
        """Return a period."""
        expires_at = None if self.rollover is None else self.start_of(number + 1 + self.rollover)
        return Period(number=number, starts_at=self.start_of(number), expires_at=expires_at)

    def has(self, number: int) -> bool:
        """Whether a period begins before the cycle's end."""
        return self.ends_at is None or self.start_of(number) < self.ends_at


def check_cycle(*, every: object = "month", starts_at: object, ends_at: object = None, rollover: object = 0) -> Cycle:
    """Return the cycle if each part is within its rule. Times are cut to the millisecond, as a grant's expiry is."""
    if every not in EVERY:
        raise InvalidValue("every", every, f"must be one of {', '.join(EVERY)}")
    whole = isinstance(rollover, int) and not isinstance(rollover, bool) and 0 <= rollover <= ROLLOVER_MAX
    if rollover is not None and not whole:
        raise InvalidValue("rollover", rollover, f"must be a whole number from 0 to {ROLLOVER_MAX}, or None for ever")
    start = _check_instant("starts_at", starts_at)
    end = None if ends_at is None else _check_instant("ends_at", ends_at)
    if end is not None and end <= start:
        raise InvalidValue("ends_at", end.isoformat(), f"must be after the start, {start.isoformat()}")
    return Cycle(
        every=str(every), starts_at=start, ends_at=end, rollover=rollover if isinstance(rollover, int) else None
    )


def due_periods(cycle: Cycle, following: int, now: datetime, most: int) -> tuple[Sequence[Period], int]:
    """Return the periods to be granted now, at most so many, from `following` on, and the number that then follows.

    A period that was missed is granted as long as its grant would still be usable, and is skipped otherwise: without
    rollover that is the current period alone, with a rollover of k the k before it too, and for ever all of them.
    """
    current = cycle.number_at(now)
    first = following if cycle.rollover is None else max(following, current - cycle.rollover)
    numbers = [number for number in range(first, min(first + most, current + 1)) if cycle.has(number)]
    return [cycle.period(number) for number in numbers], first + len(numbers)


def _check_instant(field: str, value: object) -> datetime:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidValue(field, value, "must be an aware datetime")
    instant = value.astimezone(UTC)
    if not _FIRST <= instant < _LAST:
        raise InvalidValue(field, instant.isoformat(), f"must be from {_FIRST.year} to {_LAST.year - 1}")
    return instant.replace(microsecond=instant.microsecond // 1_000 * 1_000)
