"""Plans what is to be reported: each credit of a linked client's usage goes into exactly one increment (L8).

The increment, its parts and the rows' `planned` are one transaction under the rows' locks, so that no watermark can
pass over a row that commits late. It refuses to change what was planned: what comes later goes into the next one.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, insert

from billing.core.clock import Clock
from billing.schema.stripe import stripe_increment, stripe_increment_part
from billing.sinks.sync import plan_statements as sql
from billing.sinks.sync.drafts import Draft, Unplanned, Written, drafts, identifier
from billing.sinks.sync.periods import AGE_MAX, free_minutes, is_too_old, latest_minute

#: Bounds of one transaction, which consumers of these clients wait for (L9).
CLIENTS: Final = 200
ROWS: Final = 20_000
#: Taken minutes that are looked at, per customer, for a free one.
TAKEN_MAX: Final = 2_000
#: Bound of one plan; what is left is for the next one.
SECONDS: Final = 240.0

_TOO_OLD: Final = "usage of {period} is too old: Stripe takes no event that is more than 35 days in the past"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PlanReport:
    """What a plan did. `postponed` increments had no free minute yet; `busy`: another planner was at work."""

    clients: int = 0
    increments: int = 0
    units: int = 0
    quarantined: int = 0
    postponed: int = 0
    busy: bool = False
    complete: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Planned:
    draft: Draft
    written: Written
    identifier: str
    reason: str


class Planner:
    """Plans for one meter, in slices of clients."""

    def __init__(self, engine: Engine, clock: Clock, *, event_name: str, rows: int = ROWS) -> None:
        self._engine, self._clock, self._event_name, self._rows = engine, clock, event_name, rows

    def plan(self, *, seconds: float = SECONDS) -> PlanReport:
        """Plan all that is unplanned of linked clients, until `seconds` are used up."""
        deadline = self._clock.monotonic() + seconds
        report, after, cut_client = PlanReport(), "", ""
        while True:
            with self._engine.begin() as connection:
                if not connection.execute(sql.TRY_LEAD).one().leads:
                    return dataclasses.replace(report, busy=True, complete=False)
                rows = self._lock(connection, after)
                if not rows:
                    return report
                now = self._clock.now()
                planned, postponed = self._in_minutes(connection, drafts(rows), now)
                _write(connection, planned)
            report = _sum(report, planned, postponed, counted=cut_client)
            if self._clock.monotonic() > deadline:
                return dataclasses.replace(report, complete=False)
            # A slice that was cut by the bound on rows begins anew at the client that was cut.
            cut = len(rows) == self._rows and bool(planned)
            cut_client = rows[-1].client_id if cut else ""
            # In the order of the database, whose collation may not be Python's.
            after = next((row.client_id for row in reversed(rows) if row.client_id != cut_client), after)

    def _lock(self, connection: Connection, after: str) -> list[Unplanned]:
        found = connection.execute(sql.LOCK_UNPLANNED, {"after": after, "clients": CLIENTS, "rows": self._rows})
        return [Unplanned(**row) for row in found.mappings()]

    def _in_minutes(
        self, connection: Connection, wanted: Sequence[Draft], now: datetime
    ) -> tuple[list[_Planned], list[Draft]]:
        """Give each draft a minute of its own; return also those for which there is none yet."""
        by_place: dict[Any, list[Draft]] = defaultdict(list)
        for draft in wanted:
            by_place[draft.customer_id, draft.period].append(draft)
        places = [(customer, period, latest_minute(period, now)) for customer, period in by_place]
        taken = self._taken(connection, [(customer, latest) for customer, _, latest in places if latest is not None])
        planned: list[_Planned] = []
        postponed: list[Draft] = []
        for customer, period, latest in places:
            group = by_place[customer, period]
            minutes: list[datetime] = []
            old = is_too_old(period, now)
            if latest is not None:
                known = taken[customer, latest]
                earliest = period.start if old else max(period.start, now - AGE_MAX)
                if len(known) == TAKEN_MAX:
                    # What lies before the earliest of them is not known to be free.
                    earliest = max(earliest, min(known))
                minutes = free_minutes(latest, earliest, known, len(group))
            reason = _TOO_OLD.format(period=period) if old else ""
            planned += [self._written(draft, at, now, reason) for draft, at in zip(group, minutes, strict=False)]
            postponed += group[len(minutes) :]
        return planned, postponed

    def _taken(
        self, connection: Connection, asked: Sequence[tuple[str, datetime]]
    ) -> dict[tuple[str, datetime], set[datetime]]:
        found: dict[tuple[str, datetime], set[datetime]] = {key: set() for key in asked}
        given = {
            "customers": [customer for customer, _ in asked],
            "latest": [latest for _, latest in asked],
            "event_name": self._event_name,
            "most": TAKEN_MAX,
        }
        for row in connection.execute(sql.READ_TAKEN, given):
            found[asked[row.place - 1]].add(row.event_at)
        return found

    def _written(self, draft: Draft, event_at: datetime, now: datetime, reason: str) -> _Planned:
        written = Written(
            client_id=draft.client_id,
            customer_id=draft.customer_id,
            event_name=self._event_name,
            period=draft.period,
            units=draft.units,
            generation=1,
            event_at=event_at,
            planned_at=now,
        )
        return _Planned(draft=draft, written=written, identifier=identifier(written), reason=reason)


def _write(connection: Connection, planned: Sequence[_Planned]) -> None:
    """Write increments and parts, and what the rows have planned now."""
    if not planned:
        return
    made = connection.execute(
        insert(stripe_increment).returning(stripe_increment.c.identifier, stripe_increment.c.increment_id),
        [_row(one) for one in planned],
    )
    increment_ids: dict[str, int] = {row.identifier: row.increment_id for row in made}
    connection.execute(
        insert(stripe_increment_part),
        [
            {"increment_id": increment_ids[one.identifier], **dataclasses.asdict(part)}
            for one in planned
            for part in one.draft.parts
        ],
    )
    units: Counter[tuple[str, str, datetime]] = Counter()
    returned: Counter[tuple[str, str, datetime]] = Counter()
    for one in planned:
        for part in one.draft.parts:
            key = one.draft.client_id, part.sku, part.hour
            units[key] += part.units
            returned[key] += max(0, -part.units)
    columns = list(zip(*units, strict=True))
    advanced = {"clients": list(columns[0]), "skus": list(columns[1]), "hours": list(columns[2])}
    sums = {"units": list(units.values()), "returned": [returned[key] for key in units]}
    connection.execute(sql.ADVANCE_PLANNED, {**advanced, **sums})


def _row(one: _Planned) -> dict[str, object]:
    written = one.written
    return {
        "client_id": written.client_id,
        "customer_id": written.customer_id,
        "event_name": written.event_name,
        "period_start": written.period.start,
        "period_end": written.period.end,
        "units": written.units,
        "generation": written.generation,
        "event_at": written.event_at,
        "identifier": one.identifier,
        "planned_at": written.planned_at,
        "state": "quarantined" if one.reason else "pending",
        "reason": one.reason,
        "carries_from": one.draft.carries_from,
    }


def _sum(report: PlanReport, planned: Sequence[_Planned], postponed: Sequence[Draft], *, counted: str) -> PlanReport:
    """Add a slice; the client that was cut by the one before is counted already."""
    return dataclasses.replace(
        report,
        clients=report.clients + len({one.draft.client_id for one in planned} - {counted}),
        increments=report.increments + len(planned),
        units=report.units + sum(one.draft.units for one in planned),
        quarantined=report.quarantined + sum(bool(one.reason) for one in planned),
        postponed=report.postponed + len(postponed),
    )
