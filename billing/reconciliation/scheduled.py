"""The reconciliation that beat runs: bounded in time, going on where the last one stopped, loud about what it finds."""

from __future__ import annotations

import logging

from billing.connections import postgres
from billing.reconciliation.reconcile import reconcile
from billing.reconciliation.recording import last_run
from billing.reconciliation.report import Report
from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)


def reconcile_next(runtime: Runtime, *, seconds: float) -> Report:
    """Reconcile for about so long, and log each discrepancy as an error of one line."""
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        last = last_run(connection)
    report = reconcile(runtime, seconds=seconds, after=(last.resume_after or "") if last else "")
    for found in report.discrepancies:
        logger.error("billing: %s", " ".join(found.text.split()))
    for law in report.laws:
        for reason, number in law.not_compared.items():
            logger.warning("billing: %s: %d not compared: %s", law.law, number, " ".join(reason.split()))
    if report.resume_after is not None:
        logger.warning("billing: reconciliation stopped after client %s; the next run goes on", report.resume_after)
    return report
