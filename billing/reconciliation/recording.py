"""Keeps reconciliations in PostgreSQL: a run when it begins, its laws and discrepancies when it ends."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, and_, delete, exists, insert, not_, select, update

from billing.reconciliation.report import ROWS_MAX, Discrepancy, Law, Report
from billing.schema.operations import discrepancy, reconciliation_run

#: Runs that are kept, a year of hourly ones (L9).
RUNS_KEPT: Final = 9_000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LastRun:
    """The latest reconciliation of all clients, Stripe included, that came to an end."""

    run_id: int
    finished_at: datetime
    clients: int
    held: bool
    discrepancies: int
    not_compared: int
    resume_after: str | None


def begin(connection: Connection, started_at: datetime, *, whole: bool) -> int:
    """Note that a reconciliation begins, of all clients or not; return its number. The oldest runs make room."""
    values = {"started_at": started_at, "whole": whole}
    statement = insert(reconciliation_run).values(values).returning(reconciliation_run.c.run_id)
    run_id: int = connection.execute(statement).scalar_one()
    forget(connection, run_id - RUNS_KEPT)
    return run_id


def forget(connection: Connection, oldest: int) -> None:
    """Delete what runs up to `oldest` found, but for what the continuous reconciler has not seen gone."""
    later = discrepancy.alias("later")
    closed = exists().where(later.c.closes == discrepancy.c.discrepancy_id)
    continuous = exists().where(reconciliation_run.c.run_id == discrepancy.c.run_id, reconciliation_run.c.continuous)
    stands = and_(continuous, discrepancy.c.closes.is_(None), not_(closed))
    connection.execute(delete(discrepancy).where(discrepancy.c.run_id <= oldest, not_(stands)))
    named = exists().where(discrepancy.c.run_id == reconciliation_run.c.run_id)
    connection.execute(delete(reconciliation_run).where(reconciliation_run.c.run_id <= oldest, not_(named)))


def finish(connection: Connection, report: Report) -> None:
    """Write what a reconciliation has found."""
    laws = [
        {
            "law": law.law,
            "verdict": law.verdict.value,
            "compared": dict(law.compared),
            "not_compared": dict(law.not_compared),
            "discrepancies": law.discrepancies,
        }
        for law in report.laws
    ]
    connection.execute(
        update(reconciliation_run)
        .where(reconciliation_run.c.run_id == report.run_id)
        .values(
            finished_at=report.finished_at,
            clients=report.clients,
            laws=laws,
            held=report.holds,
            resume_after=report.resume_after,
        )
    )
    rows = [columns_of(found, report.run_id) for found in report.discrepancies]
    if rows:
        connection.execute(insert(discrepancy), rows)


def columns_of(found: Discrepancy, run_id: int | None) -> dict[str, Any]:
    """Return the row of a discrepancy that a run has found."""
    return {
        "run_id": run_id,
        "law": found.law,
        "client_id": found.client_id,
        "grant_id": found.grant_id,
        "found": found.found,
        "rows": [dict(row) for row in found.rows[:ROWS_MAX]],
        "differs_by": found.differs_by,
    }


def last_run(connection: Connection) -> LastRun | None:
    """Return the latest reconciliation of all clients that came to an end, if there is one.

    One that left Stripe out does not count: it says nothing of what an earlier one found there.
    """
    run = reconciliation_run.c
    with_stripe = run.laws.contains([{"law": Law.STRIPE.value}])
    ended = select(reconciliation_run).where(run.finished_at.is_not(None), run.whole, with_stripe)
    row = connection.execute(ended.order_by(reconciliation_run.c.run_id.desc()).limit(1)).one_or_none()
    if row is None:
        return None
    return LastRun(
        run_id=row.run_id,
        finished_at=row.finished_at,
        clients=row.clients,
        held=row.held,
        # Not the rows of the table, which are the first ones alone.
        discrepancies=sum(law["discrepancies"] for law in row.laws),
        not_compared=sum(sum(law["not_compared"].values()) for law in row.laws),
        resume_after=row.resume_after,
    )
