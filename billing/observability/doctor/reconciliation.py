"""The doctor's look at reconciliation, the hourly one and the one that never ends: how old, and what it came to."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from billing.connections import postgres
from billing.observability.doctor.finding import Finding, fail, ok, warn
from billing.reconciliation.continuous.status import Status, read_status
from billing.reconciliation.recording import last_run
from billing.task.runtime import Runtime

#: Beat starts one each hour.
AGE_MAX: Final = timedelta(hours=3)
_PART: Final = "reconciliation"


def examine_reconciliation(runtime: Runtime) -> Iterator[Finding]:
    """Say when all clients were last compared, and whether anything differed."""
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        last = last_run(connection)
    if last is None:
        yield warn(_PART, "has never run", "run: billing reconcile; beat does it hourly")
        return
    age = max(runtime.clock.now() - last.finished_at, timedelta())
    seen = f"{_told(age)} ago over {last.clients:,} clients: "
    if not last.held:
        advice = "run: billing reconcile; the table discrepancy has the rows"
        yield fail(_PART, f"{seen}{last.discrepancies:,} discrepancies", advice)
    elif last.not_compared:
        yield warn(_PART, f"{seen}all laws hold, {last.not_compared:,} not compared", "run: billing reconcile")
    elif age > AGE_MAX:
        yield warn(_PART, f"{seen}all laws hold", "see whether beat and a worker with --fulfillment run")
    else:
        yield ok(_PART, f"{seen}all laws hold")


def examine_reconciler(runtime: Runtime) -> Iterator[Finding]:
    """Say when the fulfillment worker last compared every bucket, and whether anything differs."""
    status = read_status(runtime)
    if not status.on:
        yield warn(
            _PART, "continuous: is off (billing_reconcile_pass_seconds is 0)", "leave it on: it finds a lost credit"
        )
    elif status.last_pass is None or status.age_seconds is None:
        yield warn(_PART, "continuous: has not ended a pass yet", "start a worker with --fulfillment")
    else:
        yield _of_passes(status, status.last_pass.clients, status.age_seconds)


def _of_passes(status: Status, clients: int, age_seconds: float) -> Finding:
    seen = f"continuous: {_told(timedelta(seconds=age_seconds))} ago over {clients:,} clients: "
    if status.standing:
        return fail(_PART, f"{seen}{status.standing:,} discrepancies", "run: billing reconcile --status")
    if status.not_compared:
        advice = "run: billing reconcile --status; it says why"
        return warn(_PART, f"{seen}nothing differs, {status.not_compared:,} not compared", advice)
    if status.late:
        return warn(_PART, f"{seen}nothing differs", "see whether a worker with --fulfillment runs")
    return ok(_PART, f"{seen}nothing differs")


def _told(age: timedelta) -> str:
    minutes = int(age.total_seconds()) // 60
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"  # noqa: PLR2004 - an hour
