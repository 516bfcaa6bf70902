"""What the planner needs of PostgreSQL: slices under one advisory lock, and the billing periods that were read."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, Engine

from billing.sinks.sync.increment_lines import tell_increment
from billing.sinks.sync.log import Having, Plan
from billing.sinks.sync.planning.period_source import PeriodsFound
from billing.sinks.sync.planning.periods import KnownPeriod, closing, merged
from billing.sinks.sync.postgres import period_statements as sql
from billing.sinks.sync.postgres import plan_statements
from billing.sinks.sync.postgres.plan import PostgresPlan, read_periods
from billing.sinks.sync.postgres.rows import increment_of


class PostgresPlanningLog:
    """A `PlanningLog`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextlib.contextmanager
    def planning(self, *, client_id: str | None = None) -> Iterator[Plan | None]:
        """Begin a slice of a plan; None when another planner leads. What is raised inside undoes all of it."""
        with self._engine.begin() as connection:
            leads = connection.execute(plan_statements.TRY_LEAD).one().leads
            plan = PostgresPlan(connection, client_id=client_id) if leads else None
            yield plan
        for increment in plan.written if plan else ():
            tell_increment(increment)

    def find_unread(
        self, *, now: datetime, before: datetime, most: int, meter: str, client_id: str | None = None
    ) -> list[str]:
        """Return customers whose periods are to be read, those first that need it most."""
        given = {"now": now, "before": before, "most": most, "meter": meter, "client_id": client_id}
        with self._engine.connect() as connection:
            return list(connection.execute(sql.FIND_UNREAD[client_id is not None], given).scalars())

    def count_waiting(self, *, having: Having, now: datetime, client_id: str | None = None) -> Mapping[str, int]:
        """Return how many clients with unplanned usage a plan leaves out, by reason."""
        if having is Having.NOTHING:
            return {}
        given = {"now": now, "client_id": client_id}
        with self._engine.connect() as connection:
            found = connection.execute(sql.COUNT_WAITING[having, client_id is not None], given)
            return {row.reason: row.clients for row in found}

    def keep_periods(self, customer_id: str, found: PeriodsFound | None, *, read_at: datetime) -> None:
        """Keep what was read of a customer, and close what is open earlier where its period does."""
        noted = {"customer_id": customer_id, "read_at": read_at}
        with self._engine.begin() as connection:
            if found is None:
                connection.execute(sql.NOTE_TRIED, noted)
                return
            connection.execute(sql.NOTE_READ, {**noted, "reason": _said(found)})
            known = {event: some for (_, event), some in read_periods(connection, [customer_id]).items()}
            for event_name in sorted({*known, *found.periods}):
                of_meter = {"customer_id": customer_id, "event_name": event_name}
                _keep(
                    connection,
                    of_meter,
                    before=known.get(event_name, ()),
                    found=found.periods.get(event_name, ()),
                    read_at=read_at,
                )


def _keep(
    connection: Connection,
    of_meter: Mapping[str, str],
    *,
    before: Sequence[KnownPeriod],
    found: Sequence[KnownPeriod],
    read_at: datetime,
) -> None:
    """Keep the periods of one customer and meter."""
    kept = merged(before, found, read_at)
    starts = {period.start for period in kept}
    dropped = [period.start for period in before if period.start not in starts]
    if dropped:
        connection.execute(sql.DROP_PERIODS, {**of_meter, "starts": dropped})
    for period in kept:
        if period not in before:
            connection.execute(sql.KEEP_PERIOD, {**of_meter, **dataclasses.asdict(period), "read_at": read_at})
    if before and all(period in kept for period in before):
        return  # nothing that increments were planned for is another
    for row in connection.execute(sql.LOCK_OPEN, of_meter).mappings().all():
        increment = increment_of(row)
        closes = closing(increment.period_start, increment.closes_at, kept, read_at)
        if closes != increment.closes_at:
            connection.execute(sql.CLOSE, {"increment_id": increment.increment_id, "closes_at": closes})


def _said(found: PeriodsFound) -> str:
    """Return why there are no present periods, of all meters in one line."""
    return "; ".join(f"{event}: {reason}" if event else reason for event, reason in sorted(found.reasons.items()))
