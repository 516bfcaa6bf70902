"""The parts of the usage history: which run ids each is for, where it is, and which months are missing. Pure.

A month is in the history, or in the archive; elsewhere it is found only where somebody moved it by hand (`adrift`), or
where a concurrent detachment was killed (`leaving`). Neither loses a row, and no batch is written past it.
"""

from __future__ import annotations

import bisect
import dataclasses
import re
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from billing.core.clock import from_milliseconds
from billing.core.errors import InvalidValue
from billing.core.ids import LEGACY_MILLISECONDS, milliseconds_of

#: How far ahead a month that is missing counts: run ids further ahead than 31 days are refused by the log.
MISSING_AHEAD: Final = timedelta(days=35)
#: How old a month must be before it may leave the history: ids of a root task are used for 30 days, messages wait.
AGE_MIN: Final = timedelta(days=90)
PREFIX: Final = "usage_history_"

#: Of the years in which a span of usage may lie: every computation with such a month has a result.
_MONTH: Final = re.compile(r"(2\d{3})-(\d{2})", re.ASCII)
_MONTH_NAME: Final = re.compile(rf"{PREFIX}\d{{4}}_\d{{2}}")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Partition:
    """A part of the history. `place` is one of history, archive, adrift, leaving; `first_id` and `end_id` None: no end.

    `rows` is PostgreSQL's estimate unless `exact`; None: it has not estimated yet. `prepared`: a move was begun.
    """

    name: str
    schema: str
    place: str
    first_id: uuid.UUID | None
    end_id: uuid.UUID | None
    prepared: bool = False
    rows: int | None = None
    exact: bool = False
    size_bytes: int | None = None

    @property
    def month(self) -> str:
        """Its month as `2026-03`, or `early` and `legacy`: the ends, which are permanent."""
        return self.name.removeprefix(PREFIX).replace("_", "-")

    @property
    def is_month(self) -> bool:
        """Whether it is a month."""
        return _MONTH_NAME.fullmatch(self.name) is not None

    @property
    def start(self) -> datetime | None:
        """When the first run ids in it were made; None: it has no beginning, or no time at all."""
        return _instant(self.first_id)

    @property
    def end(self) -> datetime | None:
        """Until when, not included."""
        return _instant(self.end_id)


class Places:
    """Says where a run id belongs: the partitions do not overlap."""

    def __init__(self, partitions: Iterable[Partition]) -> None:
        self._partitions = sorted(partitions, key=lambda part: part.first_id.int if part.first_id else -1)
        self._firsts = [part.first_id.int if part.first_id else -1 for part in self._partitions]

    def of(self, run_id: uuid.UUID) -> Partition | None:
        """Return the partition that a run id belongs to, or None: it is missing."""
        at = bisect.bisect_right(self._firsts, run_id.int) - 1
        found = self._partitions[at] if at >= 0 else None
        if found is None or (found.end_id is not None and run_id.int >= found.end_id.int):
            return None
        return found


def parse_month(text: str) -> datetime:
    """Return the first instant of a month as `2026-03`. Raises `InvalidValue`."""
    match = _MONTH.fullmatch(text.strip())
    try:
        return datetime(int(match[1]), int(match[2]), 1, tzinfo=UTC) if match else _no_month(text)
    except ValueError:
        return _no_month(text)


def name_of(month: datetime) -> str:
    """Return the name of a month's table."""
    return f"{PREFIX}{month:%Y_%m}"


def following(month: datetime) -> datetime:
    """Return the first instant of the month after."""
    return (month + timedelta(days=32)).replace(day=1)


def missing_months(partitions: Sequence[Partition], now: datetime) -> list[str]:
    """Return the months that are in neither place though runs may have ids of them, up to five weeks from now."""
    there = {part.name for part in partitions if part.place in ("history", "archive")}
    ends = [part.end for part in partitions if part.first_id is None and part.end is not None]
    if not ends:
        return []
    missing, month = [], ends[0]
    while month <= now + MISSING_AHEAD:
        if name_of(month) not in there:
            missing.append(f"{month:%Y-%m}")
        month = following(month)
    return missing


def check_age(month: datetime, now: datetime) -> None:
    """Raise `InvalidValue` for a month that is too young to leave the history."""
    leaves = following(month) + AGE_MIN
    if now < leaves:
        rule = f"may be detached from {leaves:%Y-%m-%d} on: {AGE_MIN.days} days after its end, when no new event is its"
        raise InvalidValue("month", f"{month:%Y-%m}", rule)


def _instant(run_id: uuid.UUID | None) -> datetime | None:
    """Return the instant of a run id; the time bits of a legacy one are all ones, and none."""
    if run_id is None or milliseconds_of(run_id) == LEGACY_MILLISECONDS:
        return None
    return from_milliseconds(milliseconds_of(run_id))


def _no_month(text: str) -> datetime:
    rule = "must be a month, as 2026-03, of the years 2000 to 2999 (the ends, early and legacy, are permanent)"
    raise InvalidValue("month", text, rule)
