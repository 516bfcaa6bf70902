"""Renews the holds of the runs that this worker is executing, so that none loses its hold while it lives (L5).

It runs in the worker's main process for every pool, where Celery keeps the active requests. On a shard that is
recovering it asserts the hold instead, recomputed from the request, so that a rebuild finds it (L6).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from billing.core.errors import BillingError, Retryable
from billing.credits.values import RenewOutcome
from billing.task.attachment import Attachment
from billing.task.billable import BillableTask
from billing.task.headers import CLIENT, Identity, identify

logger = logging.getLogger(__name__)

#: The token of a hold that was asserted for an attempt by its worker's main process: it matches any attempt.
ANY_ATTEMPT: Final = "*"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Delivered:
    """A worker's request, as far as it is read like a task's own request."""

    id: str
    root_id: str | None
    retries: int
    replaced_task_nesting: int
    headers: Mapping[str, Any]


class LeaseKeeper:
    """Keeps the leases of the active requests of one worker."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment

    def renew(self, active: Iterable[Any]) -> int:
        """Renew the holds of `active` requests once; return how many there were. Never raises."""
        try:
            return self._renew(active)
        except Retryable as error:
            logger.warning("billing: leases are not renewed: %s", error)
        except Exception:
            logger.exception("billing: leases are not renewed")
        return 0

    def _renew(self, active: Iterable[Any]) -> int:
        billed = [(request, found) for request in list(active) if (found := _identity(request)) is not None]
        if not billed:
            return 0
        buckets = self._attachment.runtime.buckets
        outcomes = buckets.renew([(identity.client_id, identity.run_id, None) for _, identity in billed])
        for (request, _), outcome in zip(billed, outcomes, strict=True):
            if outcome is RenewOutcome.RECOVERING:
                try:
                    self._assert(request)
                except Retryable:
                    raise
                except Exception:
                    logger.exception("billing: the hold of request %s is not asserted", request.id)
        return len(billed)

    def _assert(self, request: Any) -> None:
        lifecycle = self._attachment.lifecycle
        run = lifecycle.prepare(request.task, request.args, request.kwargs, _delivered(request))
        self._attachment.runtime.buckets.assert_hold(msgspec.structs.replace(run.hold, token=ANY_ATTEMPT))


def _identity(request: Any) -> Identity | None:
    """Return which run a worker's request delivers; None for a task that is not billed, or will be refused."""
    task = request.task
    if not isinstance(task, BillableTask) or task.sku is None:
        return None
    delivered = _delivered(request)
    try:
        client_id = task.definition.client_of(request.args, request.kwargs, delivered.headers.get(CLIENT))
        return identify(delivered, client_id, task.definition.task)
    except BillingError:
        return None
    except Exception:
        # One request that cannot be read must not stop the renewal of the others (L10).
        logger.exception("billing: request %s is not renewed", request.id)
        return None


def _delivered(request: Any) -> _Delivered:
    options = request.request_dict
    return _Delivered(
        id=request.id,
        root_id=options.get("root_id"),
        retries=options.get("retries") or 0,
        replaced_task_nesting=options.get("replaced_task_nesting") or 0,
        headers=options,
    )
