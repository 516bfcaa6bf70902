"""Tells the callers of parked tasks that these will never run: the result backend gets a failure, as Celery does it.

At least once: a failure is noted in the table with the end of the task, taken for a minute, and noted as told last. An
app without a result backend is told nothing. It waits for the backend, and so has a thread of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import celery
from celery.app.task import Context
from celery.backends.base import DisabledBackend
from kombu.serialization import loads

from billing.connections import postgres
from billing.core.errors import BillingError, Cancelled, ParkedTooLong
from billing.parking.parked import message_of
from billing.parking.services import Services
from billing.parking.statements import TAKE_UNTOLD, TOLD

logger = logging.getLogger(__name__)

#: Failures that one round tells (L9), and after how long one that was not told is told again.
TOLD_MAX: Final = 50
_AGAIN: Final = timedelta(minutes=1)


class Teller:
    """Tells failures, a round at a time."""

    def __init__(self, app: celery.Celery, services: Services) -> None:
        self._app, self._services = app, services

    def step(self) -> int:
        """Tell what is to be told; return how many were."""
        settings, engine, now = self._services.settings, self._services.engine, self._services.clock.now()
        with postgres.reaching(settings), engine.begin() as connection:
            given = {"now": now, "again": now + _AGAIN, "count": TOLD_MAX}
            rows = [dict(row) for row in connection.execute(TAKE_UNTOLD, given).mappings()]
        told = [row["parked_id"] for row in rows if self._is_told(row)]
        if told:
            with postgres.reaching(settings), engine.begin() as connection:
                connection.execute(TOLD, {"parked": told})
        return len(told)

    def _is_told(self, row: Mapping[str, Any]) -> bool:
        try:
            tell_failure(self._app, row)
        except Exception as error:  # noqa: BLE001 - a backend raises whatever its client does
            reason = f"{type(error).__name__}: {error}"
            logger.warning("billing: the end of parked task %d is told later: %s", row["parked_id"], reason)
            return False
        return True


def failure_of(row: Mapping[str, Any]) -> BillingError:
    """Return what the caller of a task gets that was cancelled, or waited too long."""
    if row["state"] == "cancelled":
        return Cancelled(row["client_id"], row["parked_id"])
    return ParkedTooLong(row["client_id"], row["sku"], row["credits"], row["available"])


def tell_failure(app: celery.Celery, row: Mapping[str, Any]) -> None:
    """Store a task's failure, and have its chain, its chord and its errbacks hear of it."""
    backend: Any = app.backend
    if isinstance(backend, DisabledBackend):
        return
    request = _request_of(row)
    task = app.tasks.get(row["task"])
    ignores = request.get("ignore_result") or (task is not None and task.ignore_result)
    backend.mark_as_failure(request.id, failure_of(row), request=request, store_result=not ignores)


def _request_of(row: Mapping[str, Any]) -> Context:
    """Return the request of the task as a worker would have had it."""
    message = message_of(row)
    # It was decoded by a worker that accepts its content, before it was parked.
    args, kwargs, embed = loads(
        message.body, message.content_type, message.content_encoding, accept=[message.content_type]
    )
    where = {"exchange": message.exchange, "routing_key": message.routing_key, "is_eager": False}
    properties = {name: message.properties.get(name) for name in ("correlation_id", "reply_to")}
    return Context({**message.headers, **properties, **embed}, args=args, kwargs=kwargs, delivery_info=where)
