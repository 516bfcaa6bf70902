"""What beat's tasks run. What Stripe or a setting did is logged, one line, and is there for the next run to mend."""

from __future__ import annotations

import logging

from billing.core.errors import BillingError
from billing.sinks.stripe import sync
from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)


def plan(runtime: Runtime) -> dict[str, int]:
    """Plan; return counts."""
    report = sync.plan(runtime)
    if report.quarantined:
        logger.error("billing: %d increments are too old for Stripe (see: billing sync status)", report.quarantined)
    return {"increments": report.increments, "units": report.units}


def push(runtime: Runtime) -> dict[str, int]:
    """Push, then confirm; return counts of increments."""
    counted = {"sent": 0, "confirmed": 0}
    try:
        report = sync.push(runtime)
        counted["sent"] = report.sent
        if report.rejected or report.quarantined or report.ambiguous:
            counts = report.rejected, report.quarantined, report.ambiguous
            logger.error("billing: increments: %d rejected, %d quarantined, %d ambiguous", *counts)
        if report.stopped is not None:
            logger.error("billing: the push to Stripe stopped: %s", report.stopped)
        else:
            counted["confirmed"] = sync.confirm(runtime).confirmed
    except BillingError as error:
        # A task that fails with a traceback each quarter of an hour says no more than this line.
        logger.error("billing: the report to Stripe stopped: %s", error)  # noqa: TRY400
    return counted
