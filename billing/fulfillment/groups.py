"""What a client's usage adds up to per SKU, task, day or hour: summed by the database, read from the log itself.

A group counts every row that it has. The rows of dry runs are among them, with what was used and no credits, and are
counted once more apart, so that nobody takes their quantity for something that was paid.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, text

from billing.events.usage_event import DRY_RUN
from billing.fulfillment.selection import Selection

#: Groups fetched at once from the database (L9).
_FETCHED: Final = 1_000

#: What usage is grouped by → how a row's group is called. Days and hours are those of UTC.
KEYS: Final = {
    "sku": "sku",
    "day": "date_trunc('day', occurred_at, 'UTC')",
    "hour": "date_trunc('hour', occurred_at, 'UTC')",
    "task": "task",
}

#: A client's rows, added up per group, in the order of the groups.
_SUMS: Final = """
SELECT {key} AS name, count(*) AS rows, sum(quantity) AS quantity, sum(credits) AS credits,
       count(*) FILTER (WHERE mode = :dry_run) AS dry_rows,
       coalesce(sum(quantity) FILTER (WHERE mode = :dry_run), 0) AS dry_quantity
FROM (SELECT * FROM usage_ever WHERE client_id = :client_id AND {condition}{fence}) AS used
GROUP BY 1 ORDER BY 1
"""


@dataclasses.dataclass(kw_only=True, slots=True)
class GroupSum:
    """Rows, units and credits of one group, those of dry runs included, and how many of these there are."""

    rows: int = 0
    quantity: int = 0
    credits: int = 0
    dry_rows: int = 0
    dry_quantity: int = 0

    def add(self, other: GroupSum) -> None:
        """Add another group's sums."""
        for field in dataclasses.fields(GroupSum):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


@dataclasses.dataclass(kw_only=True, slots=True)
class Group(GroupSum):
    """The sums of one SKU, task, UTC day or UTC hour."""

    name: str | datetime


def usage_groups(connection: Connection, client_id: str, by: str, of: Selection) -> Generator[Group]:
    """Yield the groups of a client's rows in their order, as they come from the database; `by` is one of `KEYS`."""
    # OFFSET 0 keeps the few rows of a workflow apart from the grouping, whose order would be had from a longer index.
    fence = " OFFSET 0" if of.by_name else ""
    statement = text(_SUMS.format(key=KEYS[by], condition=of.condition(), fence=fence))
    values = {"client_id": client_id, "dry_run": DRY_RUN, **of.values()}
    with contextlib.closing(connection.execute(statement, values, execution_options={"yield_per": _FETCHED})) as rows:
        for row in rows:
            name = row.name.astimezone(UTC) if isinstance(row.name, datetime) else row.name
            yield Group(
                name=name,
                rows=row.rows,
                quantity=int(row.quantity),
                credits=int(row.credits),
                dry_rows=row.dry_rows,
                dry_quantity=int(row.dry_quantity),
            )
