"""Puts a delivery off that cannot be billed now: the message goes back to the broker, for later.

The user's own retries are not used up. The wait doubles from one time to the next, with chance, up to a minute; after
the written number of times the task fails with the reason.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn

from celery.exceptions import Ignore, Reject
from celery.utils.log import get_task_logger

from billing.core.errors import Retryable
from billing.core.settings import Settings

if TYPE_CHECKING:
    from billing.task.billable import BillableTask

logger = get_task_logger(__name__)

#: How often this delivery has been put off.
WAITS: Final = "billing_waits"
#: Bounds (L9): about a day of waiting.
WAITS_MAX: Final = 1_500
WAIT_SECONDS_MAX: Final = 60.0
_DOUBLINGS_MAX: Final = 16


def put_off(
    task: BillableTask,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    unavailable: Retryable,
    settings: Settings,
) -> NoReturn:
    """Follow `billing_on_redis_down`: raise the reason, or publish the same delivery for later and end this one."""
    request = task.request
    headers = dict(request.headers or {})
    waits = headers.get(WAITS, 0)
    policy = task.definition.on_redis_down or settings.on_redis_down
    if policy == "fail" or request.is_eager or waits >= WAITS_MAX:
        raise unavailable
    seconds = wait_seconds(waits, settings.unavailable_retry_seconds, random.random())  # noqa: S311 - spreads load
    again = task.signature_from_request(request, tuple(args), dict(kwargs), countdown=seconds, retries=request.retries)
    try:
        again.apply_async(headers=headers | {WAITS: waits + 1})
    except Exception as error:
        # The broker does not take it back; it still has this delivery, and gives it to somebody again.
        raise Reject(str(error), requeue=True) from error
    logger.warning("billing: task %s waits %.1f s: %s", request.id, seconds, unavailable)
    raise Ignore(str(unavailable)) from unavailable


def wait_seconds(waits: int, first_seconds: float, chance: float) -> float:
    """Return how long to wait next: doubled each time, bounded, spread over a half of it by `chance` (0 to 1)."""
    full: float = min(WAIT_SECONDS_MAX, first_seconds * 2 ** min(waits, _DOUBLINGS_MAX))
    return full * (0.75 + chance / 2)


def seconds_until(retry: object, now: datetime) -> float:
    """Return how long a retry of the user's own waits, from the `Retry` that Celery raised."""
    when = getattr(retry, "when", None)
    if isinstance(when, datetime):
        return max(0.0, (when - now if when.tzinfo else when - now.replace(tzinfo=None)).total_seconds())
    return float(when) if isinstance(when, int | float) else 0.0
