"""Prices in PostgreSQL: versioned and append-only (L7). Setting one never changes what was used already.

A price is refused if it would begin before usage of its SKU that the history holds, or not after the SKU's last
price, or if it would change the SKU's unit. The same price again is answered by the row that exists.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, and_, func, insert, select

from billing.catalog.price_book import Price, PriceBook
from billing.core.clock import from_milliseconds, to_milliseconds
from billing.core.credits import check_amount
from billing.core.errors import InvalidValue
from billing.core.identifiers import check_sku
from billing.schema.advisory import Guard
from billing.schema.ever import usage_ever
from billing.schema.tables import price, usage_rollup

__all__ = ["Price", "PriceBook", "check_unit", "load_price_book", "set_price"]

_UNIT_LENGTH_MAX: Final = 32
_COLUMNS: Final = (price.c.sku, price.c.version, price.c.credits_per_unit, price.c.unit, price.c.effective_at)


def set_price(
    connection: Connection,
    sku: object,
    credits_per_unit: object,
    unit: object,
    effective_at: datetime | None,
    now: datetime,
) -> Price:
    """Set what a unit of a SKU costs from `effective_at` (None: from `now`), or raise `InvalidValue`."""
    checked_sku, checked_unit = check_sku(sku), check_unit(unit)
    amount = check_amount("credits_per_unit", credits_per_unit, minimum=0)
    start = _check_instant("effective_at", now if effective_at is None else effective_at)
    connection.execute(select(func.pg_advisory_xact_lock(Guard.PRICE_BOOK, 0)))
    earlier = [_price(row) for row in connection.execute(select(*_COLUMNS).where(price.c.sku == checked_sku))]
    earlier.sort(key=lambda found: found.version)
    for found in earlier if effective_at else earlier[-1:]:
        same_start = effective_at is None or found.effective_at == start
        if same_start and (found.credits_per_unit, found.unit) == (amount, checked_unit):
            return found
    if earlier:
        _check_successor(earlier[-1], checked_unit, start)
    _check_unused(connection, checked_sku, start)
    version = select(func.coalesce(func.max(price.c.version), 0) + 1).scalar_subquery()
    values = {"sku": checked_sku, "credits_per_unit": amount, "unit": checked_unit, "effective_at": start}
    return _price(connection.execute(insert(price).values(version=version, **values).returning(*_COLUMNS)).one())


def load_price_book(connection: Connection) -> PriceBook:
    """Read all prices."""
    return PriceBook(_price(row) for row in connection.execute(select(*_COLUMNS)))


def _check_successor(last: Price, unit: str, start: datetime) -> None:
    if unit != last.unit:
        rule = f"must stay {last.unit!r}: a SKU has one unit, sell another one as another SKU"
        raise InvalidValue("unit", unit, rule)
    if start <= last.effective_at:
        rule = f"must be after {last.effective_at.isoformat()}, when the last price of {last.sku} takes effect"
        raise InvalidValue("effective_at", start.isoformat(), rule)


def _check_unused(connection: Connection, sku: str, start: datetime) -> None:
    """Refuse a price that begins at or before the last use: the rollup finds the hour, the history the instant."""
    hour = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    last_hour = select(func.max(usage_rollup.c.hour)).where(usage_rollup.c.sku == sku).scalar_subquery()
    same_hour = and_(
        usage_ever.c.client_id == usage_rollup.c.client_id,
        usage_ever.c.occurred_at >= usage_rollup.c.hour,
        usage_ever.c.occurred_at < usage_rollup.c.hour + timedelta(hours=1),
    )
    used = (
        select(func.max(usage_ever.c.occurred_at))
        .select_from(usage_rollup.join(usage_ever, same_hour))
        .where(usage_rollup.c.sku == sku, usage_rollup.c.hour == last_hour, usage_rollup.c.hour >= hour)
        .where(usage_ever.c.sku == sku, usage_ever.c.occurred_at >= start)
    )
    last_used = connection.execute(used).scalar_one()
    if last_used is not None:
        rule = f"must be after {last_used.isoformat()}, the last use of {sku}: a price never changes used history"
        raise InvalidValue("effective_at", start.isoformat(), rule)


def check_unit(unit: object) -> str:
    """Return the word for one of what is sold or metered. Raises `InvalidValue`."""
    if (
        not isinstance(unit, str)
        or not 1 <= len(unit) <= _UNIT_LENGTH_MAX
        or not unit.isprintable()
        or unit.strip() != unit
    ):
        raise InvalidValue("unit", unit, f"must be 1 to {_UNIT_LENGTH_MAX} printable characters")
    return unit


def _check_instant(field: str, instant: object) -> datetime:
    if not isinstance(instant, datetime) or instant.tzinfo is None:
        raise InvalidValue(field, instant, "must be an instant with a time zone, such as 2026-01-31T00:00:00Z")
    return from_milliseconds(to_milliseconds(instant))  # runs are priced by the millisecond


def _price(row: Row[*tuple[Any, ...]]) -> Price:
    return Price(**row._mapping)  # noqa: SLF001 - SQLAlchemy's documented way to a row's mapping
