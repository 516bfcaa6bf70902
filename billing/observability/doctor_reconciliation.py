"""The doctor's look at the last reconciliation: how old it is, and what it came to."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from billing.connections import postgres
from billing.observability.finding import Finding, fail, ok, warn
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


def _told(age: timedelta) -> str:
    minutes = int(age.total_seconds()) // 60
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"  # noqa: PLR2004 - an hour
