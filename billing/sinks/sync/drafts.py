"""From rows of usage to increments: one for each client and billing period, and what its identifier covers. Pure.

The parts of an increment say which credits of which row it carries, from one running total of the row (exclusive) to
another, so that each credit is in exactly one increment and can be followed from its usage line to the invoice. What
corrections returned is a running total of its own, below 0: its parts make an increment smaller. A period in which more
was returned than used sends nothing; all of it waits, and is carried by the first increment that is above 0 again.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from billing.schema.stripe import UNITS_MAX
from billing.sinks.sync.increment import Increment
from billing.sinks.sync.periods import Period, period_of

#: Names the way in which identifiers are computed; another way needs another prefix.
_PREFIX: Final = "b1-"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Unplanned:
    """A row of `usage_rollup` with credits that no increment carries yet.

    `credits` and `planned` are what is left after what was `returned`, and planned of that.
    """

    client_id: str
    customer_id: str
    sku: str
    hour: datetime
    credits: int
    planned: int
    returned: int = 0
    returned_planned: int = 0

    @property
    def units(self) -> int:
        """How many credits increments are yet to carry; below 0, how many fewer."""
        return self.credits - self.planned


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Credits of one row, from a running total (exclusive) up to another; what was returned, from one down."""

    sku: str
    hour: datetime
    credits_from: int
    credits_to: int

    @property
    def units(self) -> int:
        """How many credits it carries."""
        return self.credits_to - self.credits_from


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """An increment that has no minute yet."""

    client_id: str
    customer_id: str
    period: Period
    parts: tuple[Part, ...]

    @property
    def units(self) -> int:
        """Its units: a unit is one credit."""
        return sum(part.units for part in self.parts)

    @property
    def carries_from(self) -> datetime | None:
        """The first hour before its period of which it carries anything."""
        first = min(part.hour for part in self.parts)
        return first if first < self.period.start else None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """All that an increment's identifier covers: what is written once."""

    client_id: str
    customer_id: str
    event_name: str
    period: Period
    units: int
    generation: int
    event_at: datetime
    planned_at: datetime


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A draft with its minute: the increment as it is written, which has no id yet (0)."""

    draft: Draft
    increment: Increment


def drafts(rows: Iterable[Unplanned]) -> list[Draft]:
    """Return the increments that carry all that is unplanned in `rows`, in the order of clients and periods.

    What is not above 0 in a period is carried on to the client's next one; past the last of `rows`, it waits. Above
    `UNITS_MAX`, which is Stripe's bound on one event, a client's period is split; so is a row where it must be.
    """
    ordered = sorted(rows, key=lambda row: (row.client_id, row.hour, row.sku))
    found = []
    for (client_id, customer_id), own in itertools.groupby(ordered, key=lambda row: (row.client_id, row.customer_id)):
        carried: list[Unplanned] = []
        for period, group in itertools.groupby(own, key=lambda row: period_of(row.hour)):
            carried += group
            if sum(row.units for row in carried) > 0:
                found += [
                    Draft(client_id=client_id, customer_id=customer_id, period=period, parts=tuple(parts))
                    for parts in _filled(carried)
                ]
                carried = []
    return found


def _filled(rows: Sequence[Unplanned]) -> Iterator[list[Part]]:
    """Fill one increment after the other, each to the brim; the first has all that was returned."""
    parts = [
        Part(sku=row.sku, hour=row.hour, credits_from=-row.returned_planned, credits_to=-row.returned)
        for row in rows
        if row.returned > row.returned_planned
    ]
    room = UNITS_MAX - sum(part.units for part in parts)
    for row in rows:
        at, used = row.planned + row.returned_planned, row.credits + row.returned
        while at < used:
            if not room:
                yield parts
                parts, room = [], UNITS_MAX
            upto = min(used, at + room)
            parts.append(Part(sku=row.sku, hour=row.hour, credits_from=at, credits_to=upto))
            room -= upto - at
            at = upto
    if parts:
        yield parts


def identifier(written: Written) -> str:
    """Return the name under which Stripe counts the increment once: another payload has another one.

    The moment of planning is covered, so that two databases which report to one account never share a name.
    """
    content: Sequence[object] = (
        written.client_id,
        written.customer_id,
        written.event_name,
        _instant(written.period.start),
        _instant(written.period.end),
        written.units,
        written.generation,
        _instant(written.event_at),
        _instant(written.planned_at),
    )
    digest = hashlib.sha256(json.dumps(content).encode()).digest()
    return _PREFIX + base64.b32encode(digest).decode().rstrip("=").lower()


def _instant(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="microseconds")
