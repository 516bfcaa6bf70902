"""What a run says it used: `self.usage.record(...)`, or `billing.usage.record(...)` without `bind`.

Recorded quantities add up per SKU and replace the declared default of that SKU. They live on the request of the
run, never on the task object, which threads and greenlets share; those of a block of `billing.reserve` live with the
block. Outside a run both raise.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

import celery

from billing.core.credits import check_amount
from billing.core.errors import BillingError, InvalidValue
from billing.core.identifiers import check_sku
from billing.task.definition import LINES_MAX


class NotInARun(BillingError):
    """Usage was recorded outside a billed run."""

    def __str__(self) -> str:
        return (
            "usage.record: was called outside a billed run: call it in the body of a BillableTask that a worker runs, "
            "or in a block of billing.reserve(...)"
        )


class Recorder:
    """The quantities that one run has recorded so far."""

    def __init__(self, own_sku: str, *, fixed: bool = False) -> None:
        self._own_sku, self._fixed = own_sku, fixed
        self._stage: Callable[[], None] | None = None
        self._turn = threading.Lock()
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
        if self._fixed and name == self._own_sku:
            raise InvalidValue(
                "quantity", quantity, f"cannot be recorded for SKU {name!r}, whose task fixes its credits"
            )
        check_amount("quantity", quantity, minimum=0)
        # A run's body may have threads of its own: a sum is read, changed and staged by one at a time.
        with self._turn:
            self._add(name, quantity)

    def _add(self, name: str, quantity: int) -> None:
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


class Scope:
    """A block that goes on: what this thread or coroutine records in it is the block's.

    A task that is run eagerly inside the block records for itself. A child that was forked inside the block has none
    of it: the block, and the charge, are its parent's.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._around = _run_of(celery.current_task)
        self._process = os.getpid()
        self._closed = False
        _scopes.set((*_scopes.get(), self))

    @property
    def is_open(self) -> bool:
        """Whether the block goes on, in this very process."""
        return not self._closed and self._process == os.getpid()

    def close(self) -> None:
        """End the block. A generator may be closed in another context than that which it was begun in."""
        self._closed = True
        _scopes.set(tuple(scope for scope in _scopes.get() if scope is not self))

    def is_innermost(self, run: Any) -> bool:
        """Whether the run of the current task (None: there is none in this thread) did not begin inside the block."""
        return run is None or run is self._around


_scopes: Final[ContextVar[tuple[Scope, ...]]] = ContextVar("billing_scopes", default=())


def record(quantity: int, *, sku: str | None = None) -> None:
    """Record usage of the innermost run that is going on here: a block's, or a task's (see `Recorder.record`)."""
    run = _run_of(celery.current_task)
    for scope in reversed(_scopes.get()):
        if scope.is_open and scope.is_innermost(run):
            scope.recorder.record(quantity, sku=sku)
            return
    current(celery.current_task).record(quantity, sku=sku)


def current(task: Any) -> Recorder:
    """Return the recorder of the run that `task` is executing here, or raise `NotInARun`."""
    run = _run_of(task)
    if run is None:
        raise NotInARun
    recorder: Recorder = run.recorder
    return recorder


def _run_of(task: Any) -> Any:
    return getattr(task.request, "billing_run", None) if task else None
