"""Meters: which SKUs one counts, and how many credits its unit has. Written once: another unit is another meter.

A SKU that no meter here counts is counted by the meter of the settings, whose unit is one credit unless it is here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, exists, select
from sqlalchemy.dialects.postgresql import insert

from billing.catalog.prices import check_unit
from billing.core import parsers
from billing.core.credits import check_amount
from billing.core.errors import Conflict, InvalidValue
from billing.core.identifiers import check_sku
from billing.schema.stripe import meter, sku_meter, stripe_increment
from billing.schema.tables import price

#: What a unit is called unless it is said.
CREDITS: Final = "credits"
#: SKUs that one call gives a meter at most (L9).
SKUS_MAX: Final = 1_000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class UsageMeter:
    """A meter as billing knows it: `unit` is the word for one of what it counts, `skus` are those given to it."""

    event_name: str
    unit: str = CREDITS
    credits_per_unit: int = 1
    skus: tuple[str, ...] = ()


def add_meter(
    connection: Connection, event_name: object, *, credits_per_unit: object, unit: object, skus: Sequence[object]
) -> tuple[UsageMeter, bool]:
    """Add a meter, or SKUs to one; return it with whether anything is new. The same again changes nothing.

    Raises `InvalidValue`, and `Conflict` for another unit of a meter, and for a SKU that another meter counts.
    """
    name = parsers.event_name("meter", event_name)
    amount = check_amount("credits_per_unit", credits_per_unit)
    word = check_unit(unit)
    if len(skus) > SKUS_MAX:
        raise InvalidValue("sku", len(skus), f"must be at most {SKUS_MAX} at once")
    wanted = sorted({check_sku(sku) for sku in skus})
    values = {"event_name": name, "unit": word, "credits_per_unit": amount}
    made = connection.execute(
        insert(meter).values(values).on_conflict_do_nothing().returning(meter.c.event_name)
    ).one_or_none()
    found = connection.execute(select(meter).where(meter.c.event_name == name)).one()
    if (found.unit, found.credits_per_unit) != (word, amount):
        has = f"{found.credits_per_unit:,} credits per unit of {found.unit}"
        raise Conflict(f"meter: {name!r}: has {has}, which stays: another unit is another meter")
    if made is not None and amount != 1:
        _check_unplanned(connection, name)
    given = _give(connection, name, wanted)
    return _meter_of(connection, name), made is not None or given


def without_price(connection: Connection, skus: Sequence[str]) -> list[str]:
    """Return those of the SKUs that no price was ever set for: misspelled, or yet to come."""
    priced = set(connection.execute(select(price.c.sku).where(price.c.sku.in_(skus)).distinct()).scalars())
    return sorted(set(skus) - priced)


def list_meters(connection: Connection, default: str) -> list[UsageMeter]:
    """Return the meters in use, in the order of their names: the one of the settings, and those that were added."""
    skus: dict[str, list[str]] = {}
    for row in connection.execute(select(sku_meter.c.event_name, sku_meter.c.sku).order_by(sku_meter.c.sku)):
        skus.setdefault(row.event_name, []).append(row.sku)
    found = {
        row.event_name: UsageMeter(
            event_name=row.event_name,
            unit=row.unit,
            credits_per_unit=row.credits_per_unit,
            skus=tuple(skus.get(row.event_name, ())),
        )
        for row in connection.execute(select(meter))
    }
    found.setdefault(default, UsageMeter(event_name=default))
    return [found[name] for name in sorted(found)]


def _give(connection: Connection, name: str, skus: Sequence[str]) -> bool:
    """Give SKUs to a meter; return whether one is new."""
    if not skus:
        return False
    rows = [{"sku": sku, "event_name": name} for sku in skus]
    made = insert(sku_meter).on_conflict_do_nothing().returning(sku_meter.c.sku)
    given = set(connection.execute(made, rows).scalars())
    others = select(sku_meter).where(sku_meter.c.sku.in_(skus), sku_meter.c.event_name != name).limit(1)
    other = connection.execute(others).one_or_none()
    if other is not None:
        raise Conflict(f"sku: {other.sku!r}: is counted by meter {other.event_name!r}, which stays")
    return bool(given)


def _check_unplanned(connection: Connection, name: str) -> None:
    """Refuse to change what a unit is under increments that were written with the old one."""
    if connection.execute(select(exists().where(stripe_increment.c.event_name == name))).scalar_one():
        raise Conflict(f"meter: {name!r}: has increments whose unit is one credit, which stays: take another meter")


def _meter_of(connection: Connection, name: str) -> UsageMeter:
    return next(found for found in list_meters(connection, name) if found.event_name == name)
