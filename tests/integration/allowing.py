"""An office for the tests of allowances: a database with clients, and runners that share a clock."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy

from billing import admin
from billing.core.settings import Settings
from billing.ledger import schedules
from billing.ledger.cycles import check_cycle
from billing.ledger.grant_terms import check_terms
from billing.ledger.schedules import ScheduleRow
from billing.task.runtime import Runtime
from tests.amqp import MovedClock

#: Far ahead, since the ledger refuses an expiry that has passed by PostgreSQL's clock.
NOON = datetime(2101, 1, 31, 12, tzinfo=UTC)
FEBRUARY, MARCH, APRIL = (
    datetime(2101, 2, 28, 12, tzinfo=UTC),
    datetime(2101, 3, 31, 12, tzinfo=UTC),
    datetime(2101, 4, 30, 12, tzinfo=UTC),
)


class Office:
    """A database with clients, and runners that share a clock."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = MovedClock(at=NOON)
        self.runtime = Runtime(lambda: settings, self.clock)

    def client(self, client_id: str) -> str:
        """Add a client with a bucket."""
        admin.add_client(self.settings, client_id)
        return client_id

    def add(self, client_id: str, credits_: int = 100, key: str = "plan", **cycle: Any) -> ScheduleRow:
        """Add an allowance that begins now, without a first look at it."""
        with self.runtime.engine.begin() as connection:
            made = check_cycle(**{"starts_at": self.clock.at, **cycle})
            terms = check_terms(kind="allowance")
            return schedules.add_schedule(
                connection, client_id, credits_, key, cycle=made, terms=terms, now=self.clock.at
            )[0]

    def grants(self, client_id: str = "acme") -> list[tuple[int, datetime | None]]:
        """Return credits and expiry of a client's grants, in their order."""
        return self.rows(
            "SELECT credits, expires_at FROM credit_grant WHERE client_id = :client ORDER BY grant_id", client=client_id
        )

    def rows(self, query: str, **given: object) -> list[Any]:
        """Return the rows of a query."""
        with self.runtime.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sqlalchemy.text(query), given)]

    def row(self, schedule_id: int) -> ScheduleRow:
        """Return an allowance."""
        found = {row.schedule_id: row for row in admin.allowances(self.settings, ended=True)}
        return found[schedule_id]
