"""What a delivery does whose client cannot pay now: `billing_on_exhausted`, or the task's own option `on_exhausted`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from billing.core.errors import InsufficientCredits
from billing.core.settings import Settings
from billing.task.park import park_delivery

if TYPE_CHECKING:
    from billing.task.billable import BillableTask


def answer_exhausted(
    task: BillableTask,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    exhausted: InsufficientCredits,
    settings: Settings,
) -> NoReturn:
    """Follow the policy: raise the reason."""
    match task.definition.on_exhausted or settings.on_exhausted:
        case "fail":
            raise exhausted
        case "park":
            park_delivery(task, args, kwargs, exhausted, settings)
