"""Keeps the usage history's months a year ahead, apart from the migrations, whose library a worker does not need."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, func, select

#: How far ahead months are made.
MONTHS_AHEAD: Final = 12


def make_partitions(connection: Connection, now: datetime) -> list[str]:
    """Make every missing month up to a year after `now`; return the names of those made. Idempotent, safe at once."""
    month = now.astimezone(UTC).date().replace(day=1)
    years, months = divmod(month.month - 1 + MONTHS_AHEAD, 12)
    until = month.replace(year=month.year + years, month=months + 1)
    made = connection.execute(select(func.billing_make_usage_months(until)))
    return list(made.scalars())
