"""What a run says it used: `self.usage.record(...)`, or `billing.usage.record(...)` without `bind`.

Recorded quantities add up per SKU and replace the declared default of that SKU. They live on the request of the
run, never on the task object, which threads and greenlets share. Outside a run both raise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import celery

from billing.core.credits import check_amount
from billing.core.errors import BillingError, InvalidValue
from billing.core.identifiers import check_sku
from billing.task.definition import LINES_MAX


class NotInARun(BillingError):
    """Usage was recorded outside a billed run."""

    def __str__(self) -> str:
        return "usage.record: was called outside a billed run: call it in the body of a BillableTask that a worker runs"


class Recorder:
    """The quantities that one run has recorded so far."""

    def __init__(self, own_sku: str) -> None:
        self._own_sku = own_sku
        self._stage: Callable[[], None] | None = None
        self.quantities: dict[str, int] = {}

    def staged_by(self, stage: Callable[[], None]) -> None:
        """Call `stage` after each record; it refuses what cannot be rated."""
        self._stage = stage

    def record(self, quantity: int, *, sku: str | None = None) -> None:
        """Add `quantity` (a whole number, in the SKU's unit) to what is charged when the run succeeds.

        The line is also staged with the hold, so that it is not lost with the worker. Raises `InvalidValue` for a
        bad quantity or SKU and `UnknownSku` for one without a price.
        """
        name = self._own_sku if sku is None else check_sku(sku)
        check_amount("quantity", quantity, minimum=0)
        before = dict(self.quantities)
        self.quantities[name] = check_amount("quantity", before.get(name, 0) + quantity, minimum=0)
        if len(self.quantities) > LINES_MAX:
            self.quantities = before
            raise InvalidValue("sku", name, f"a run records at most {LINES_MAX} SKUs")
        try:
            if self._stage is not None:
                self._stage()
        except BillingError:
            self.quantities = before
            raise


def record(quantity: int, *, sku: str | None = None) -> None:
    """Record usage of the run that is going on in this thread or greenlet (see `Recorder.record`)."""
    current(celery.current_task).record(quantity, sku=sku)


def current(task: Any) -> Recorder:
    """Return the recorder of the run that `task` is executing here, or raise `NotInARun`."""
    run = getattr(task.request, "billing_run", None) if task else None
    if run is None:
        raise NotInARun
    recorder: Recorder = run.recorder
    return recorder
