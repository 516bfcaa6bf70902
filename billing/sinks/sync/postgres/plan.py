"""One slice of a plan in PostgreSQL: a transaction that holds the planners' advisory lock."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, insert

from billing.schema.stripe import stripe_increment, stripe_increment_part
from billing.sinks.sync import protocol
from billing.sinks.sync.increment import Increment
from billing.sinks.sync.log import Having
from billing.sinks.sync.planning.drafts import Meters, Planned, Unplanned
from billing.sinks.sync.planning.periods import KnownPeriod
from billing.sinks.sync.postgres import plan_statements as sql
from billing.sinks.sync.postgres.push_statements import ADD_RESOLUTION
from billing.sinks.sync.postgres.rows import increment_of, row_of
from billing.sinks.sync.resolving import Resolution

#: Clients of one slice (L9).
CLIENTS: Final = 200


class PostgresPlan:
    """A `Plan`, of all clients or of one."""

    def __init__(self, connection: Connection, *, client_id: str | None = None) -> None:
        self._connection, self._client_id = connection, client_id
        #: What it has written, as it is told once that is committed.
        self.written: list[Increment] = []

    def meters(self) -> Meters:
        """Return which meter counts which SKU, and how many credits a unit of each is."""
        skus, units = self._connection.execute(sql.READ_SKU_METERS), self._connection.execute(sql.READ_METERS)
        return Meters(
            of_sku={row.sku: row.event_name for row in skus},
            credits_per_unit={row.event_name: row.credits_per_unit for row in units},
        )

    def unplanned(self, *, after: str, rows: int, having: Having, now: datetime) -> Sequence[Unplanned]:
        """Lock and return what is unplanned of the next linked clients."""
        given = {"after": after, "clients": CLIENTS, "rows": rows, "now": now, "client_id": self._client_id}
        statement = sql.LOCK_UNPLANNED[having, self._client_id is not None]
        return [Unplanned(**row) for row in self._connection.execute(statement, given).mappings()]

    def customers(self, client_ids: Sequence[str]) -> Mapping[str, str]:
        """Return the present customers of those of some clients that are linked."""
        found = self._connection.execute(sql.READ_CUSTOMERS, {"client_ids": list(client_ids)})
        return {row.client_id: row.customer_id for row in found}

    def periods(self, customer_ids: Sequence[str]) -> Mapping[tuple[str, str], Sequence[KnownPeriod]]:
        """Return the known periods by (customer, meter), the oldest first."""
        return read_periods(self._connection, customer_ids)

    def taken(self, asked: Sequence[tuple[str, str, datetime]], *, most: int) -> list[set[datetime]]:
        """Return the minutes that increments have, from each `latest` back."""
        customers, events, latest = (list(column) for column in zip(*asked, strict=True))
        given = {"customers": customers, "events": events, "latest": latest, "most": most}
        found: list[set[datetime]] = [set() for _ in asked]
        for row in self._connection.execute(sql.READ_TAKEN, given):
            found[row.place - 1].add(row.event_at)
        return found

    def write(self, planned: Sequence[Planned]) -> None:
        """Write increments with their parts, and advance what the rows have planned."""
        if not planned:
            return
        made = self._connection.execute(
            insert(stripe_increment).returning(stripe_increment.c.identifier, stripe_increment.c.increment_id),
            [_inserted(one.increment) for one in planned],
        )
        increment_ids: dict[str, int] = {row.identifier: row.increment_id for row in made}
        self._connection.execute(
            insert(stripe_increment_part),
            [
                {"increment_id": increment_ids[one.increment.identifier], **dataclasses.asdict(part)}
                for one in planned
                for part in one.draft.parts
            ],
        )
        self._advance(planned)
        self.written += [
            dataclasses.replace(one.increment, increment_id=increment_ids[one.increment.identifier]) for one in planned
        ]

    def adopt(self, planned: Sequence[Planned], resolution: Resolution) -> None:
        """Write increments that the sink has already, each with what a person said of it."""
        self.write(planned)
        said = {**dataclasses.asdict(resolution), "generation": 1, "was": "adopted"}
        for increment in self.written[len(self.written) - len(planned) :]:
            self._connection.execute(ADD_RESOLUTION, {**said, "increment_id": increment.increment_id})

    def _advance(self, planned: Sequence[Planned]) -> None:
        credits_: Counter[tuple[str, str, datetime]] = Counter()
        returned: Counter[tuple[str, str, datetime]] = Counter()
        for one in planned:
            for part in one.draft.parts:
                key = one.draft.client_id, part.sku, part.hour
                credits_[key] += part.credits
                returned[key] += max(0, -part.credits)
        columns = list(zip(*credits_, strict=True))
        advanced = {"clients": list(columns[0]), "skus": list(columns[1]), "hours": list(columns[2])}
        sums = {"units": list(credits_.values()), "returned": [returned[key] for key in credits_]}
        self._connection.execute(sql.ADVANCE_PLANNED, {**advanced, **sums})

    def to_reissue(self, *, after: int, now: datetime, most: int) -> Sequence[Increment]:
        """Lock and return what cannot be sent as it is."""
        given = {
            "after": after,
            "now": now,
            "most": most,
            "client_id": self._client_id,
            "checks": protocol.ABSENCE_CHECKS,
            "too_old": now - protocol.EVENT_AGE_MAX,
            "ahead": now + protocol.AHEAD_MAX,
        }
        statement = sql.LOCK_REISSUED[self._client_id is not None]
        found = [increment_of(row) for row in self._connection.execute(statement, given).mappings()]
        return [increment for increment in found if protocol.needs_reissue(increment, now)]

    def first_hour(self, increment_id: int) -> datetime:
        """Return the first hour of usage that an increment carries."""
        found: datetime = self._connection.execute(sql.FIRST_HOUR, {"increment_id": increment_id}).scalar_one()
        return found

    def replace(self, increment: Increment) -> None:
        """Write an increment as it is to be."""
        found = self._connection.execute(sql.READ_GENERATION, {"increment_id": increment.increment_id}).scalar_one()
        statement = sql.CHANGE if found == increment.generation else sql.REISSUE
        self._connection.execute(statement, row_of(increment))
        self.written.append(increment)


def read_periods(connection: Connection, customer_ids: Sequence[str]) -> dict[tuple[str, str], list[KnownPeriod]]:
    """Return the known periods of some customers by (customer, meter), the oldest first."""
    found: dict[tuple[str, str], list[KnownPeriod]] = {}
    for row in connection.execute(sql.READ_PERIODS, {"customer_ids": list(customer_ids)}):
        period = KnownPeriod(
            start=row.period_start,
            end=row.period_end,
            closes_at=row.closes_at,
            ended=row.ended,
            subscription_id=row.subscription_id,
        )
        found.setdefault((row.customer_id, row.event_name), []).append(period)
    return found


def _inserted(increment: Increment) -> dict[str, object]:
    """Return the columns of a new increment: the database numbers it."""
    row = row_of(increment)
    del row["increment_id"]
    return row
