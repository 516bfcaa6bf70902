"""Puts a delivery off that cannot be billed now: the message goes back to the broker, for later.

The user's own retries are not used up. On RabbitMQ it waits in a queue of billing's own (`wait_queues.py`), and this
delivery ends only once that queue has it; nothing waits in a worker's memory. kombu's Redis transport hands nothing
over from queue to queue: there it is Celery's countdown, unconfirmed and in the worker's memory until it is due. What
the broker does not take is given back to it, slowly, or fails if it was acked early. Bounds: `waits.py`.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn

import celery
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from celery.utils.log import get_task_logger

from billing.core.clock import to_milliseconds
from billing.core.errors import BillingError, InsufficientCredits, Retryable
from billing.task.again import message_again
from billing.task.run_lines import tell_delivery
from billing.task.waits import WAITS, WAITS_MAX, Waits, level_of, read_waits, wait_seconds, without_waits

if TYPE_CHECKING:
    from billing.task.billable import BillableTask
    from billing.task.runtime import Runtime

logger = get_task_logger(__name__)

#: A delivery that the broker did not take is given back no sooner than this after it was begun (L9).
GIVE_BACK_SECONDS: Final = 2.0


def put_off(
    task: BillableTask,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    unavailable: Retryable,
    runtime: Runtime,
) -> NoReturn:
    """Follow `billing_on_redis_down`: raise the reason, or have the same delivery come back later and end this one."""
    settings, waits = runtime.settings, read_waits(task.request.headers)
    policy = task.definition.on_redis_down or settings.on_redis_down
    if policy == "fail" or task.request.is_eager or waits.unavailable >= WAITS_MAX:
        raise unavailable
    seconds = wait_seconds(waits.unavailable, settings.unavailable_retry_seconds, _chance())
    _come_back(task, (args, kwargs), waits.once_unavailable(), seconds, unavailable, runtime)


def wait_for_credits(
    task: BillableTask,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    exhausted: InsufficientCredits,
    runtime: Runtime,
) -> NoReturn:
    """Have a delivery come back whose client cannot pay now, or raise the reason once it has waited for too long."""
    settings, waits = runtime.settings, read_waits(task.request.headers)
    now = to_milliseconds(runtime.clock.now())
    if task.request.is_eager or waits.exhausted_seconds(now) >= settings.exhausted_wait_max_seconds:
        raise exhausted
    seconds = wait_seconds(waits.exhausted, settings.exhausted_wait_seconds, _chance())
    _come_back(task, (args, kwargs), waits.once_exhausted(now), seconds, exhausted, runtime)


def forget_waits(task: BillableTask) -> None:
    """Take the counts of waits off a delivery that is admitted: its retries and its `replace()` begin anew."""
    headers = task.request.headers
    if headers and WAITS in headers:
        task.request.headers = without_waits(headers)


def _come_back(
    task: BillableTask,
    call: tuple[Sequence[Any], Mapping[str, Any]],
    waits: Waits,
    seconds: float,
    reason: BillingError,
    runtime: Runtime,
) -> NoReturn:
    """Publish the same delivery for later, and end this one; where the broker does not take it, give it back."""
    began, request = runtime.clock.monotonic(), task.request
    try:
        again = message_again(request, *call, waits)
        if again is None:
            _count_down(task, call, waits, seconds)
        else:
            milliseconds = level_of(seconds)
            runtime.wait_queues.publish(task.app, again, milliseconds)
            seconds = milliseconds / 1_000
    except Exception as error:
        if not task.acks_late:
            # Overridden: the broker has forgotten this delivery, so that giving it back would lose it without a word.
            raise reason from error
        # It still has this delivery, and gives it to somebody again: at once, so that not at once is up to us.
        logger.warning("billing: task %s cannot wait, and is given back: %s", request.id, error)
        with suppress(SoftTimeLimitExceeded):
            threading.Event().wait(max(0.0, GIVE_BACK_SECONDS - (runtime.clock.monotonic() - began)))
        raise Reject(str(error), requeue=True) from error
    level = logging.INFO if isinstance(reason, InsufficientCredits) else logging.WARNING
    tell_delivery(task, "put_off", reason, level, seconds=round(seconds, 1))
    raise Ignore(str(reason)) from reason


def _count_down(
    task: BillableTask, call: tuple[Sequence[Any], Mapping[str, Any]], waits: Waits, seconds: float
) -> None:
    request, (args, kwargs) = task.request, call
    again = task.signature_from_request(request, tuple(args), dict(kwargs), countdown=seconds, retries=request.retries)
    options = {**again.options, "headers": without_waits(request.headers or {}) | waits.headers()}
    # Celery's own: a task's `apply_async` is for submissions, and may refuse what this is about.
    celery.Task.apply_async(task, again.args, again.kwargs, **options)


def seconds_until(retry: object, now: datetime) -> float:
    """Return how long a retry of the user's own waits, from the `Retry` that Celery raised."""
    when = getattr(retry, "when", None)
    if isinstance(when, datetime):
        return max(0.0, (when - now if when.tzinfo else when - now.replace(tzinfo=None)).total_seconds())
    return float(when) if isinstance(when, int | float) else 0.0


def _chance() -> float:
    return random.random()  # noqa: S311 - spreads load
