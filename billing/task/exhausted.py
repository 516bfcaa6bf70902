"""What a delivery does whose client cannot pay now: `billing_on_exhausted`, or the task's own option `on_exhausted`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from billing.core.errors import InsufficientCredits
from billing.task.park import park_delivery
from billing.task.putting_off import wait_for_credits

if TYPE_CHECKING:
    from billing.task.billable import BillableTask
    from billing.task.runtime import Runtime


def answer_exhausted(
    task: BillableTask,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    exhausted: InsufficientCredits,
    runtime: Runtime,
) -> NoReturn:
    """Follow the policy: raise the reason, or wait for credits in the broker or in PostgreSQL."""
    match task.definition.on_exhausted or runtime.settings.on_exhausted:
        case "retry":
            wait_for_credits(task, args, kwargs, exhausted, runtime)
        case "fail":
            raise exhausted
        case "park":
            park_delivery(task, args, kwargs, exhausted, runtime)
