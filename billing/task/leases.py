"""Renews the holds of the runs that this worker is executing, so that none loses its hold while it lives (L5).

It runs in the worker's main process for every pool, where Celery keeps the active requests, for a run that keeps its
own process too busy to renew (`renewal.py`). It only renews: which requests were admitted is known to their process
alone, so on a shard that is recovering it is that process which asserts the hold (L6).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from billing.core.errors import BillingError, Retryable
from billing.task.attachment import Attachment
from billing.task.billable import BillableTask
from billing.task.headers import CLIENT, Identity, identify

logger = logging.getLogger(__name__)


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
        """Renew the holds of `active` requests once; return how many servers answered for. Never raises."""
        try:
            return self._renew(active)
        except Retryable as error:
            logger.warning("billing: leases are not renewed: %s", error)
        except Exception:
            logger.exception("billing: leases are not renewed")
        return 0

    def _renew(self, active: Iterable[Any]) -> int:
        billed = [found for request in list(active) if (found := _identity(request)) is not None]
        if not billed:
            return 0
        items = [(identity.client_id, identity.run_id, None) for identity in billed]
        outcomes = self._attachment.runtime.buckets.renew_each(items)
        failed = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        if failed:
            logger.warning("billing: %d of %d leases are not renewed: %s", len(failed), len(billed), failed[0])
        return len(billed) - len(failed)


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
