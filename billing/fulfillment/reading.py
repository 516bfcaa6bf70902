"""Reads the usage history, archived months included: a client's rows, newest first, and what they add up to."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, func, select, text, tuple_

from billing.core.errors import InvalidValue
from billing.fulfillment.selection import EVERYTHING, Selection
from billing.schema.ever import usage_ever

#: L9: rows that one page holds at most.
PAGE_MAX: Final = 10_000

_COLUMNS: Final = tuple(usage_ever.c)
#: The order of a client's rows, and so the place at which a page ends.
_ORDER: Final = (usage_ever.c.occurred_at, usage_ever.c.run_id, usage_ever.c.line)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class UsageRow:
    """One line of a run, as it was charged. `grants` says which grant paid how much; grant 0 is debt."""

    run_id: uuid.UUID
    line: int
    settlement_id: str
    client_id: str
    correlation_id: str
    root_id: str
    task: str
    attempt: int
    sku: str
    quantity: int
    credits: int
    grants: Sequence[dict[str, int]]
    epoch: int
    price_version: int
    late: bool
    submitted_at: datetime | None
    occurred_at: datetime
    recorded_at: datetime
    corrects: uuid.UUID | None
    corrects_line: int | None
    #: Why the run was outside the ceiling: `dry_run`, `meter_only`; None: it was not.
    mode: str | None = None

    @property
    def place(self) -> Place:
        """Where this row stands in its client's order: the next page begins before it."""
        return Place(occurred_at=self.occurred_at, run_id=self.run_id, line=self.line)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A place in the order of a client's rows."""

    occurred_at: datetime
    run_id: uuid.UUID
    line: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class UsageSum:
    """What the history holds of one client."""

    client_id: str
    spent: int
    rows: int
    runs: int


def usage_page(
    connection: Connection,
    client_id: str,
    *,
    limit: int = 100,
    before: Place | None = None,
    of: Selection = EVERYTHING,
) -> Sequence[UsageRow]:
    """Return at most `limit` rows of a client, newest first, beginning before a place."""
    if not 1 <= limit <= PAGE_MAX:
        raise InvalidValue("limit", limit, f"must be from 1 to {PAGE_MAX}")
    page = select(*_COLUMNS).where(usage_ever.c.client_id == client_id, text(of.condition()))
    if before is not None:
        # The first condition says the same as the second does of the time alone; it is what the index can use.
        page = page.where(usage_ever.c.occurred_at <= before.occurred_at)
        page = page.where(tuple_(*_ORDER) < tuple_(before.occurred_at, before.run_id, before.line))
    page = page.order_by(*(column.desc() for column in _ORDER)).limit(limit)
    return [_row(row) for row in connection.execute(page, of.values())]


def usage_sums(connection: Connection, client_ids: Sequence[str] | None = None) -> Sequence[UsageSum]:
    """Return what the history holds per client (None: of all that have used anything), in the order of their ids.

    It reads every row of these clients: the log itself is asked, not what was derived from it.
    """
    sums = select(
        usage_ever.c.client_id,
        func.sum(usage_ever.c.credits).label("spent"),
        func.count().label("rows"),
        func.count().filter(usage_ever.c.line == 0, usage_ever.c.corrects.is_(None)).label("runs"),
    ).group_by(usage_ever.c.client_id)
    if client_ids is not None:
        sums = sums.where(usage_ever.c.client_id.in_(client_ids))
    return [
        UsageSum(client_id=row.client_id, spent=int(row.spent), rows=row.rows, runs=row.runs)
        for row in connection.execute(sums.order_by(usage_ever.c.client_id))
    ]


def _row(row: Row[*tuple[Any, ...]]) -> UsageRow:
    return UsageRow(**row._mapping)  # noqa: SLF001 - SQLAlchemy's documented way to a row's mapping
