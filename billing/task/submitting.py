"""What is checked when a task is submitted, so that its caller hears of it: who pays, and what the call says.

With `refuse_early` the bucket is asked as well, by a read that holds nothing: the reservation at the start stays the
gate. Where Redis or PostgreSQL is away or recovering the task is submitted, and for some seconds they are not asked
again (L9). What is published for a run that was submitted before, or by Celery once a parent has ended, is not
refused here: it would fail the run or the parent that it belongs to, not itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import celery

from billing.core.errors import ClientInactive, InsufficientCredits, Retryable
from billing.credits.values import ReserveOutcome
from billing.task.definition import Definition
from billing.task.headers import AT, CLIENT
from billing.task.overrides import as_called
from billing.task.quoting import Quote, quote_call
from billing.task.run import Call

if TYPE_CHECKING:
    from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: The name under which it is noted that nobody could say whether a task would start.
_UNANSWERED: Final = "quote"


def check_submitted(
    definition: Definition,
    runtime: Callable[[], Runtime],
    call: Call,
    options: Mapping[str, Any],
) -> None:
    """Raise the reason why a submission is refused; `options` are those of the publish, headers included."""
    headers = options.get("headers") or {}
    # A call that does not fit the task is refused by Celery itself, with a better message.
    if not is_first(headers, options) or not definition.takes(*call):
        return
    called = as_called(definition, headers)
    client_id = called.client_of(*call, headers.get(CLIENT))
    if called.refuse_early and options.get("countdown") is None and options.get("eta") is None:
        refuse_early(runtime(), called, client_id, call)


def is_first(headers: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Whether this publish begins a run by its caller's own call: no retry, no replacement, no link of a canvas."""
    # Celery's chain takes the parent out of its first task's options, and leaves the root there.
    of_canvas = options.get("parent_id") is not None or options.get("root_id") is not None
    if AT in headers or of_canvas or options.get("retries"):
        return False
    current: Any = celery.current_task
    return not current or options.get("task_id") is None or current.request.id != options["task_id"]


def refuse_early(runtime: Runtime, definition: Definition, client_id: str, call: Call) -> None:
    """Raise what a reservation would be refused with for good, were it made now."""
    if _UNANSWERED in runtime.unanswered:
        return
    try:
        quoted = quote_call(runtime, definition, client_id, call)
    except Retryable as error:
        runtime.unanswered.add(_UNANSWERED)
        logger.warning("billing: task %s is submitted unasked: %s", definition.task, error)
        return
    _check(quoted)


def _check(quoted: Quote) -> None:
    match quoted.outcome:
        case ReserveOutcome.INSUFFICIENT:
            raise InsufficientCredits(quoted.client_id, quoted.sku, quoted.required, quoted.available)
        case ReserveOutcome.SUSPENDED | ReserveOutcome.CLOSED:
            raise ClientInactive(quoted.client_id, quoted.outcome.name.lower())
        case _:
            # A full outbox passes: what waits for the broker is put off, not refused.
            return
