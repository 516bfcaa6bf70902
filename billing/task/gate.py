"""The gate of a task's delivery: reserve before the body runs, or refuse it, or put it off.

Called in `before_start`, the only place whose exceptions count: what is raised here ends the delivery as if the body
had raised it, and the body does not run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from billing.core.errors import BillingError, InsufficientCredits, Retryable
from billing.task.begun import note_if_parked
from billing.task.definition import Definition
from billing.task.exhausted import answer_exhausted
from billing.task.headers import CLIENT, Identity, identify
from billing.task.modes import is_dry
from billing.task.noting import note_refusal
from billing.task.overrides import as_called
from billing.task.putting_off import forget_waits, put_off
from billing.task.run import Call, Run, attach_run

if TYPE_CHECKING:
    from billing.task.billable import BillableTask
    from billing.task.lifecycle import Lifecycle
    from billing.task.runtime import Runtime


def begin(cycle: Lifecycle, task: BillableTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Reserve for a delivery that is about to run, or raise to refuse it or put it off."""
    runtime = cycle.runtime
    if is_dry(task.definition, runtime.settings):
        call = (args, kwargs)
        attach_run(task, cycle.modes.dry_run(task.definition, task.request, call, lambda: read_delivery(task, call)))
        return
    try:
        run = prepare_delivery(cycle, task, args, kwargs)
        cycle.hold(run)
    except BillingError as refused:
        try:
            _answer(task, args, kwargs, refused, runtime)
        except Exception as ended:
            note_refusal(
                cycle.trail, runtime.clock, task, refused, ended, lambda: read_delivery(task, (args, kwargs))[1]
            )
            raise
    forget_waits(task)
    attach_run(task, run)
    note_if_parked(cycle.runtime, task.request, run)


def _answer(
    task: BillableTask, args: Sequence[Any], kwargs: Mapping[str, Any], refused: BillingError, runtime: Runtime
) -> NoReturn:
    """Have the delivery wait or be parked, or raise the reason why it was refused."""
    if isinstance(refused, InsufficientCredits):
        answer_exhausted(task, args, kwargs, refused, runtime)
    if isinstance(refused, Retryable):
        put_off(task, args, kwargs, refused, runtime)
    raise refused


def prepare_delivery(cycle: Lifecycle, task: BillableTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Run:
    """Return the run of the request that a task is executing, not yet reserved."""
    definition, identity = read_delivery(task, (args, kwargs))
    return cycle.prepare_run(definition, identity, task.request, (args, kwargs))


def read_delivery(task: BillableTask, call: Call) -> tuple[Definition, Identity]:
    """Return what the request of a task is charged by, and which run it is.

    Raises `InvalidValue` where its headers or arguments do not say who pays, or say what the options would not take.
    """
    request, headers = task.request, task.request.headers or {}
    definition = as_called(task.definition, headers)
    return definition, identify(request, definition.client_of(*call, headers.get(CLIENT)), definition.task)
