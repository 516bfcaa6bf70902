"""The lines of the log about runs (`billing.runs`): what became of a reservation, with every id that it is found by.

How a delivery ended is told at INFO, a line each; what it held meanwhile at DEBUG. None has an argument of the task.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from billing.core.change_log import RUNS, Value, log_change
from billing.core.errors import BillingError, InsufficientCredits
from billing.credits.values import StoredHold
from billing.events.usage_event import decode_head
from billing.task.run import Run

if TYPE_CHECKING:
    from billing.task.billable import BillableTask


def tell_run(run: Run, change: str, level: int = logging.INFO, /, **more: Value) -> None:
    """Tell what became of a run that this process has."""
    if RUNS.isEnabledFor(level):
        head = run.head
        ids: dict[str, Value] = {"run_id": head.run_id, "client_id": head.client_id, "sku": run.hold.sku}
        ids |= {"task_id": head.correlation_id, "task": head.task}
        log_change(RUNS, change, level, **ids, attempt=head.attempt, **more)


def tell_hold(hold: StoredHold, change: str, level: int = logging.INFO, /, **more: Value) -> None:
    """Tell what the reaper made of a hold."""
    if RUNS.isEnabledFor(level):
        ids: dict[str, Value] = {"run_id": hold.run_id, "client_id": hold.client_id, "sku": hold.sku}
        with suppress(msgspec.MsgspecError):
            head = decode_head(hold.head)
            ids |= {"task_id": head.correlation_id, "task": head.task}
        log_change(RUNS, change, level, **ids, attempt=hold.attempt, **more)


def tell_delivery(
    task: BillableTask, change: str, reason: BillingError, level: int = logging.INFO, /, **more: Value
) -> None:
    """Tell of a delivery that has no reservation why not: by the kind of reason, whose text may name an argument."""
    if not RUNS.isEnabledFor(level):
        return
    request: Any = task.request
    found: dict[str, Value] = {"client_id": getattr(reason, "client_id", None)}
    if isinstance(reason, InsufficientCredits):
        found |= {"sku": reason.sku, "required": reason.required, "available": reason.available}
    ids: dict[str, Value] = {"task_id": request.id, "task": task.name, "attempt": (request.retries or 0) + 1}
    log_change(RUNS, change, level, **found, **ids, reason=type(reason).__name__, **more)
