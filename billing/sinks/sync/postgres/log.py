"""Increments in PostgreSQL: each method locks, lets the protocol decide, writes what it says, and commits.

Guarantee: a decision is made about the increment as it is under its lock, and an attempt is on record before its call.
Of two who want one customer at once, one goes away empty-handed; nobody waits for a call that is being made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from billing.sinks.sink import ErrorReport, Kind, Payload
from billing.sinks.sync.afterwards import REPORT_MARGIN
from billing.sinks.sync.increment import Attempt, Increment
from billing.sinks.sync.increment_lines import tell_increment
from billing.sinks.sync.log import Decide, Noted, Open
from billing.sinks.sync.postgres import push_statements as sql
from billing.sinks.sync.postgres.planning import PostgresPlanningLog
from billing.sinks.sync.postgres.rows import increment_of, row_of
from billing.sinks.sync.protocol import AHEAD_MAX, EVENT_AGE_MAX, LEASE, RESEND_WITHIN
from billing.sinks.sync.resolving import Resolution


class PostgresLog(PostgresPlanningLog):
    """An `IncrementLog`."""

    def find_lost(self, found: Open) -> list[int]:
        """Return what is `sending` with a lease that has ended, or ends later than any can."""
        given = {**_limits(found), "now": found.now, "longest": found.now + AHEAD_MAX + LEASE}
        with self._engine.connect() as connection:
            return list(connection.execute(sql.FIND_LOST, given).scalars())

    def find_open(self, found: Open) -> list[Increment]:
        """Return what may be sent, those first that were tried least, and those last that were held."""
        window = {
            "resend_from": found.now - RESEND_WITHIN,
            "ahead": found.now + AHEAD_MAX,
            "too_old": found.now - EVENT_AGE_MAX,
        }
        given = {**_limits(found), **window, "books": found.books, "now": found.now}
        with self._engine.connect() as connection:
            return [increment_of(row) for row in connection.execute(sql.FIND_OPEN, given).mappings()]

    def find_unconfirmed(self, found: Open) -> list[Increment]:
        """Return what the sink's own sums may prove, those first that were looked at longest ago."""
        given = {**_limits(found), "books": found.books}
        with self._engine.connect() as connection:
            return [increment_of(row) for row in connection.execute(sql.FIND_UNCONFIRMED, given).mappings()]

    def claim(self, increment_id: int, decide: Decide) -> Increment | None:
        """Take an increment for a call, and write its attempt down."""
        at = {"increment_id": increment_id}
        with self._engine.begin() as connection:
            if connection.execute(sql.LOCK_CUSTOMER, at).one_or_none() is None:
                return None
            found = connection.execute(sql.LOCK_FREE, at).mappings().one_or_none()
            if found is None:
                return None
            before = increment_of(found)
            claimed = decide(before)
            if claimed is None:
                return None
            _write(connection, claimed)
            begun = {"attempt": claimed.attempts, "idempotency_key": claimed.idempotency_key}
            connection.execute(sql.BEGIN_ATTEMPT, {**at, **begun, "started_at": claimed.last_attempt_at})
        tell_increment(claimed, was=before)
        return claimed

    def note(self, increment_id: int, decide: Noted) -> Increment | None:
        """Note the answer to an attempt; return the increment as it is then."""
        with self._engine.begin() as connection:
            found = _locked(connection, increment_id)
            if found is None:
                return None
            decided, attempt = decide(found)
            if decided is not None:
                _write(connection, decided)
            if attempt is not None:
                connection.execute(sql.NOTE_ATTEMPT, _noted(attempt))
        tell_increment(decided, was=found)
        return decided or found

    def change(self, increment_id: int, decide: Decide) -> Increment | None:
        """Change an increment; return it as it is then, None when nothing was changed."""
        with self._engine.begin() as connection:
            found = _locked(connection, increment_id)
            decided = decide(found) if found is not None else None
            if decided is not None:
                _write(connection, decided)
        tell_increment(decided, was=found)
        return decided

    def resolve(self, increment_id: int, decide: Decide, resolution: Resolution) -> Increment | None:
        """Change an increment as a person says, with what they said; None when it is unknown or nothing was changed.

        The same again changes nothing, and returns the increment as it is.
        """
        with self._engine.begin() as connection:
            found = _locked(connection, increment_id)
            if found is None:
                return None
            said = {"increment_id": increment_id, "generation": found.generation, **dataclasses.asdict(resolution)}
            if connection.execute(sql.FIND_RESOLUTION, said).one_or_none() is not None:
                return found
            decided = decide(found)
            if decided is not None:
                _write(connection, decided)
                connection.execute(sql.ADD_RESOLUTION, {**said, "was": found.state.value})
        tell_increment(decided, was=found)
        return decided

    def sent_before(self, increment_id: int) -> Sequence[Payload]:
        """Return the generations before its present one that were sent, where they lie elsewhere."""
        with self._engine.connect() as connection:
            found = connection.execute(sql.SENT_BEFORE, {"increment_id": increment_id}).mappings()
            return [Payload(**{**row, "kind": Kind(row["kind"])}) for row in found]

    def doubted_by(self, increment_id: int) -> str | None:
        """Return the code of a report that may be about one of its calls without naming it."""
        given = {"increment_id": increment_id, "margin": REPORT_MARGIN, "lease": LEASE}
        with self._engine.connect() as connection:
            code: str | None = connection.execute(sql.DOUBTED_BY, given).scalar_one_or_none()
        return code

    def add_reports(self, reports: Sequence[ErrorReport], now: datetime) -> list[tuple[ErrorReport, list[int]]]:
        """Keep reports that are new, with the increments whose attempts they name; return all that were given."""
        added = []
        with self._engine.begin() as connection:
            for report in reports:
                samples = list(report.samples)
                named = list(connection.execute(sql.FIND_NAMED, {"samples": samples}).scalars())
                kept = {**dataclasses.asdict(report), "samples": samples, "increments": named, "now": now}
                connection.execute(sql.ADD_REPORT, kept)
                added.append((report, named))
        return added

    def reported_until(self) -> datetime | None:
        """Return the latest end of a window that a report is about; None before the first report."""
        with self._engine.connect() as connection:
            until: datetime | None = connection.execute(sql.REPORTED_UNTIL).scalar_one()
        return until


def _limits(found: Open) -> dict[str, Any]:
    return {"most": found.most, "client_id": found.client_id, "without": list(found.without)}


def _locked(connection: Connection, increment_id: int) -> Increment | None:
    row = connection.execute(sql.LOCK, {"increment_id": increment_id}).mappings().one_or_none()
    return increment_of(row) if row is not None else None


def _write(connection: Connection, increment: Increment) -> None:
    connection.execute(sql.WRITE, row_of(increment))


def _noted(attempt: Attempt) -> dict[str, Any]:
    outcome = attempt.outcome.value if attempt.outcome is not None else None
    return {**{field.name: getattr(attempt, field.name) for field in dataclasses.fields(attempt)}, "outcome": outcome}
