"""The gate of a task's delivery: reserve before the body runs, or refuse it, or put it off.

Called in `before_start`, the only place whose exceptions count: what is raised here ends the delivery as if the body
had raised it, and the body does not run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from billing.core.errors import InsufficientCredits, Retryable
from billing.task.begun import note_if_parked
from billing.task.exhausted import answer_exhausted
from billing.task.headers import CLIENT, identify
from billing.task.putting_off import put_off
from billing.task.run import Run, attach_run

if TYPE_CHECKING:
    from billing.task.billable import BillableTask
    from billing.task.lifecycle import Lifecycle


def begin(cycle: Lifecycle, task: BillableTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Reserve for a delivery that is about to run, or raise to refuse it or put it off."""
    settings = cycle.runtime.settings
    try:
        run = prepare_delivery(cycle, task, args, kwargs)
        cycle.hold(run)
    except InsufficientCredits as exhausted:
        answer_exhausted(task, args, kwargs, exhausted, settings)
    except Retryable as unavailable:
        put_off(task, args, kwargs, unavailable, settings)
    attach_run(task, run)
    note_if_parked(cycle.runtime, task.request, run)


def prepare_delivery(cycle: Lifecycle, task: BillableTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Run:
    """Return the run of the request that a task is executing, not yet reserved."""
    request, definition = task.request, task.definition
    client_id = definition.client_of(args, kwargs, (request.headers or {}).get(CLIENT))
    identity = identify(request, client_id, definition.task)
    return cycle.prepare_run(definition, identity, request, (args, kwargs))
