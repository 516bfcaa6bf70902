"""From rows of usage to increments: one for each client, meter and place, and what its identifier covers. Pure.

The parts of an increment say which credits of which row it carries, from one running total of the row (exclusive) to
another, so that each credit is in exactly one increment and can be followed from its usage line to the invoice. What
corrections returned is a running total of its own, below 0: its parts make an increment smaller.

An increment carries whole units: what is left, less than one, stays unplanned in its rows and is the first that a later
one takes, so that for ever the sum of units is the floor of the sum of credits. So does what is not above 0: a period
in which more was returned than used sends nothing, and what comes next is reported less by as much.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from billing.schema.stripe import UNITS_MAX
from billing.sinks.sync.increment import Increment, State
from billing.sinks.sync.planning.periods import floor_hour
from billing.sinks.sync.planning.places import Place

#: Names the way in which identifiers are computed; another way needs another prefix.
_PREFIX: Final = "b2-"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Meters:
    """Which meter counts a SKU, if not the default one, and how many credits its unit is, if not 1."""

    of_sku: Mapping[str, str] = dataclasses.field(default_factory=dict)
    credits_per_unit: Mapping[str, int] = dataclasses.field(default_factory=dict)


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
    def left(self) -> int:
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
    def credits(self) -> int:
        """How many it carries."""
        return self.credits_to - self.credits_from


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """An increment that has no minute yet. Its parts carry exactly `units` times `credits_per_unit` credits."""

    client_id: str
    customer_id: str
    event_name: str
    place: Place
    units: int
    credits_per_unit: int
    parts: tuple[Part, ...]

    @property
    def carries_from(self) -> datetime | None:
        """The first hour before its period of which it carries anything."""
        first = min(part.hour for part in self.parts)
        return first if first < floor_hour(self.place.start) else None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A draft with its minute: the increment as it is written, which has no id yet (0)."""

    draft: Draft
    increment: Increment


#: Says where the usage of an hour of a customer and meter goes, or in one line why it waits.
Placing = Callable[[str, str, datetime], Place | str]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Drafted:
    """What became of some rows. `waiting`: why a client's usage cannot be planned yet, by (client, reason)."""

    drafts: tuple[Draft, ...]
    waiting: frozenset[tuple[str, str]]


def drafted(rows: Iterable[Unplanned], *, meters: Meters, default: str, placing: Placing) -> Drafted:
    """Return the increments that carry what can be planned of `rows`, in the order of clients, meters and places.

    What is not a whole unit in one place is taken on to the client's next one; past the last of them, it stays.
    """

    def key(row: Unplanned) -> tuple[str, str, str]:
        return row.client_id, row.customer_id, meters.of_sku.get(row.sku, default)

    found: list[Draft] = []
    waiting: set[tuple[str, str]] = set()
    ordered = sorted(rows, key=lambda row: (*key(row), row.hour, row.sku))
    for (client_id, customer_id, event_name), own in itertools.groupby(ordered, key=key):
        placed: dict[Place, list[Unplanned]] = {}
        for row in own:
            place = placing(customer_id, event_name, row.hour)
            if isinstance(place, str):
                waiting.add((client_id, place))
            else:
                placed.setdefault(place, []).append(row)
        each = meters.credits_per_unit.get(event_name, 1)
        carried: list[Unplanned] = []
        # What is late is of older periods; where two are of one start, it comes first.
        for place in sorted(placed, key=lambda place: (place.start, not place.is_late)):
            group = sorted([*carried, *placed[place]], key=lambda row: (row.hour, row.sku))
            parts, carried = _filled(group, each)
            for units, some in parts:
                draft = Draft(
                    client_id=client_id,
                    customer_id=customer_id,
                    event_name=event_name,
                    place=place,
                    units=units,
                    credits_per_unit=each,
                    parts=tuple(some),
                )
                found.append(draft)
    return Drafted(drafts=tuple(found), waiting=frozenset(waiting))


def adopted(
    rows: Sequence[Unplanned], *, event_name: str, place: Place, credits_per_unit: int, most: int
) -> list[Draft]:
    """Return drafts that carry at most `most` units of one client's rows, the oldest hours first, in one place."""
    ordered = sorted(rows, key=lambda row: (row.hour, row.sku))
    parts, _ = _filled(ordered, credits_per_unit, most)
    return [
        Draft(
            client_id=ordered[0].client_id,
            customer_id=ordered[0].customer_id,
            event_name=event_name,
            place=place,
            units=units,
            credits_per_unit=credits_per_unit,
            parts=tuple(some),
        )
        for units, some in parts
    ]


def _filled(
    rows: Sequence[Unplanned], each: int, most: int | None = None
) -> tuple[list[tuple[int, list[Part]]], list[Unplanned]]:
    """Fill one increment after the other, the first with all that was returned; return also what is left.

    `most`: no more units than these.
    """
    units = sum(row.left for row in rows) // each
    units = units if most is None else min(units, most)
    if units <= 0:
        return [], list(rows)
    used = [(row, row.planned + row.returned_planned) for row in rows]
    parts = [
        Part(sku=row.sku, hour=row.hour, credits_from=-row.returned_planned, credits_to=-row.returned)
        for row in rows
        if row.returned > row.returned_planned
    ]
    filled = []
    while units:
        some = min(units, UNITS_MAX)
        more, used = _take(used, some * each - sum(part.credits for part in parts))
        filled.append((some, [*parts, *more]))
        parts, units = [], units - some
    left = [
        dataclasses.replace(row, planned=upto - row.returned, returned_planned=row.returned)
        for row, upto in used
        if upto < row.credits + row.returned
    ]
    return filled, left


def _take(used: Sequence[tuple[Unplanned, int]], wanted: int) -> tuple[list[Part], list[tuple[Unplanned, int]]]:
    """Take `wanted` credits of rows, the first ones first, each from the total up to which it is taken already."""
    parts, left = [], []
    for row, at in used:
        upto = min(row.credits + row.returned, at + wanted)
        if upto > at:
            parts.append(Part(sku=row.sku, hour=row.hour, credits_from=at, credits_to=upto))
            wanted -= upto - at
        left.append((row, upto))
    return parts, left


def increment_of(draft: Draft, *, event_at: datetime, planned_at: datetime) -> Increment:
    """Return a draft as the increment that is written. It has no id yet (0)."""
    place = draft.place
    made = Increment(
        increment_id=0,
        client_id=draft.client_id,
        customer_id=draft.customer_id,
        event_name=draft.event_name,
        kind=place.kind,
        period_start=place.start,
        period_end=place.end,
        units=draft.units,
        credits_per_unit=draft.credits_per_unit,
        generation=1,
        event_at=event_at,
        identifier="",
        planned_at=planned_at,
        carries_from=draft.carries_from,
        closes_at=place.closes_at,
        state=State.WRITTEN_OFF if place.written_off else State.PENDING,
        reason=place.reason,
    )
    return dataclasses.replace(made, identifier=identifier(made))


#: What an identifier covers: all that is written once, but the increment's own number, which the log gives.
COVERED: Final = (
    "client_id",
    "customer_id",
    "event_name",
    "kind",
    "period_start",
    "period_end",
    "units",
    "credits_per_unit",
    "generation",
    "event_at",
    "planned_at",
)


def identifier(increment: Increment) -> str:
    """Return the name under which a sink counts the increment once: another payload has another one.

    The moment of planning is covered, so that two databases which report to one account never share a name.
    """
    content = list(_plain(getattr(increment, name) for name in COVERED))
    digest = hashlib.sha256(json.dumps(content).encode()).digest()
    return _PREFIX + base64.b32encode(digest).decode().rstrip("=").lower()


def _plain(values: Iterable[object]) -> Iterator[object]:
    for value in values:
        if isinstance(value, datetime):
            yield value.astimezone(UTC).isoformat(timespec="microseconds")
        else:
            yield getattr(value, "value", value)
