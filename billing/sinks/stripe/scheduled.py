"""What beat's tasks run. What Stripe or a setting did is logged, one line, and is there for the next run to mend."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from billing.core.errors import BillingError
from billing.sinks.stripe import wiring
from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: Lines of one plan: who is held has a reason of its own (L9).
REASONS_MAX: Final = 20


def plan(runtime: Runtime) -> dict[str, int]:
    """Plan; return how many increments were made."""
    return {"increments": _logged(lambda: _plan(runtime))}


def close(runtime: Runtime) -> dict[str, int]:
    """Plan what periods that are over are yet to be told; return how many increments were made."""
    return {"increments": _logged(lambda: wiring.close(runtime).increments)}


def _plan(runtime: Runtime) -> int:
    report = wiring.plan(runtime)
    if report.quarantined:
        logger.error("billing: %d increments were sent under too many identifiers", report.quarantined)
    if report.written_off:
        logger.error("billing: %d increments came too late and are written off", report.written_off)
    if report.unread:
        logger.error("billing: billing periods were not read from Stripe: %s", report.unread)
    for reason, clients in sorted(report.waiting.items())[:REASONS_MAX]:
        logger.warning("billing: usage of %d clients waits: %s", clients, reason)
    if len(report.waiting) > REASONS_MAX:
        more = len(report.waiting) - REASONS_MAX
        logger.warning("billing: usage waits for %d more reasons (see: billing sync plan)", more)
    return report.increments


def push(runtime: Runtime) -> dict[str, int]:
    """Push; return how many increments were sent."""

    def run() -> int:
        report = wiring.push(runtime)
        if report.rejected or report.ambiguous:
            logger.error("billing: increments: %d rejected, %d ambiguous", report.rejected, report.ambiguous)
        _log_refused(report.refused)
        if report.held:
            logger.error("billing: %d clients are told nothing more at Stripe: %s", len(report.held), report.held[0])
        if report.stopped is not None:
            logger.error("billing: the push to Stripe stopped: %s", report.stopped)
        return report.sent

    return {"sent": _logged(run)}


def confirm(runtime: Runtime) -> dict[str, int]:
    """Confirm; return how many increments Stripe's sums have proved."""

    def run() -> int:
        report = wiring.confirm(runtime)
        if report.quarantined or report.withdrawn:
            counts = report.quarantined, report.withdrawn
            logger.error("billing: increments: %d quarantined, %d counted twice and withdrawn", *counts)
        _log_refused(report.refused)
        return report.confirmed

    return {"confirmed": _logged(run)}


def errors(runtime: Runtime) -> dict[str, int]:
    """Read Stripe's error reports; return how many there were."""

    def run() -> int:
        report = wiring.read_reports(runtime)
        if report.rejected or report.quarantined:
            logger.error(
                "billing: Stripe took and dropped increments: %d rejected, %d quarantined (see: billing sync status)",
                report.rejected,
                report.quarantined,
            )
        return report.read

    return {"reports": _logged(run)}


def _logged(run: Callable[[], int]) -> int:
    try:
        return run()
    except BillingError as error:
        # A task that fails with a traceback each quarter of an hour says no more than this line.
        logger.error("billing: the report to Stripe stopped: %s", error)  # noqa: TRY400
        return 0


def _log_refused(lines: Sequence[str]) -> None:
    for line in lines:
        logger.error("billing: a meter takes nothing, and its increments wait: %s", line)
