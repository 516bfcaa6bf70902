"""Spans of time that usage is asked for: from an instant up to, not including, another; a UTC month unless told. Pure.

Refuses what has no zone, is out of range, or ends before it begins, and ids that no task can have.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Final

from billing.core.errors import InvalidValue
from billing.core.limits import TEXT_LENGTH_MAX
from billing.core.printable import is_unicode
from billing.fulfillment.selection import Selection

#: Earlier and later than any usage; within, every computation with days and months has a result.
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(3000, 1, 1, tzinfo=UTC)
_DAY: Final = timedelta(days=1)
#: The shortest time between two instants.
INSTANT: Final = timedelta(microseconds=1)


def span(start: datetime | None, end: datetime | None, now: datetime) -> tuple[datetime, datetime]:
    """Return a span in UTC, with what is not given: the month that `end` closes, that of `start`, or the current one.

    Raises `InvalidValue` for a span without a zone, empty or out of range.
    """
    _check(start, end)
    if start is None:
        start = _month((end or now + INSTANT) - INSTANT)
    if end is None:
        # Any month has at least 28 days and at most 31.
        end = _month(_month(start) + 32 * _DAY)
    if start >= end:
        raise InvalidValue("from", start.isoformat(), f"must be before {end.isoformat()}, its end")
    return start.astimezone(UTC), end.astimezone(UTC)


def bounded(of: Selection, now: datetime) -> Selection:
    """Return a selection with a span: that of `span`, unless a task or a workflow is asked for, whenever it ran.

    Raises `InvalidValue` as `checked` does.
    """
    _check_ids(of)
    if of.by_name and (of.start is None or of.end is None):
        return checked(of)
    start, end = span(of.start, of.end, now)
    return dataclasses.replace(of, start=start, end=end)


def checked(of: Selection) -> Selection:
    """Return a selection as it is, open where no instant is given.

    Raises `InvalidValue` as `span` does, and for an id that the log cannot have.
    """
    _check_ids(of)
    _check(of.start, of.end)
    if of.start is not None and of.end is not None:
        span(of.start, of.end, of.start)
    return of


def _check_ids(of: Selection) -> None:
    for field, value in (("correlation_id", of.correlation_id), ("root_id", of.root_id)):
        # What the log takes. Half a surrogate pair stands for a byte that a terminal gave and that is no UTF-8.
        if value is not None and (len(value) > TEXT_LENGTH_MAX or "\0" in value or not is_unicode(value)):
            raise InvalidValue(field, value[:80], f"must be at most {TEXT_LENGTH_MAX} characters of UTF-8 without NUL")


def _check(start: datetime | None, end: datetime | None) -> None:
    for field, instant in (("from", start), ("to", end)):
        if instant is not None and instant.tzinfo is None:
            raise InvalidValue(field, instant.isoformat(), "must have a time zone, as 2026-11-21T08:00:00Z")
        if instant is not None and not _EARLIEST <= instant <= _LATEST:
            rule = f"must be from {_EARLIEST:%Y-%m-%d} to {_LATEST:%Y-%m-%d}"
            raise InvalidValue(field, instant.isoformat(), rule)


def _month(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
