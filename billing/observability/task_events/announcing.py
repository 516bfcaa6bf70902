"""Announces billed deliveries as task events, where the worker sends those: `worker_send_task_events`, or `-E`.

Without them nothing is made: no thread, no connection. Whatever fails here is logged and forgotten: a monitor's event
is no money, and must not touch the task.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Final

import celery

from billing.connections.per_process import PerProcess
from billing.observability.task_events.sender import EventSender
from billing.observability.task_events.task_event import TYPE, of_refusal, of_run
from billing.task.billable import BillableTask, app_of
from billing.task.run import run_of

logger = logging.getLogger(__name__)

#: How long a process that ends waits for the broker to take its last events (L9).
_CLOSE_SECONDS: Final = 1.0

#: Apps whose worker was started with `-E`. Their children know it by the fork.
_switched_on: Final[weakref.WeakSet[celery.Celery]] = weakref.WeakSet()
_senders: Final[PerProcess[dict[tuple[int, str], EventSender]]] = PerProcess(dict)


def switch_on(app: celery.Celery) -> None:
    """Announce the deliveries of this app, whatever its configuration says."""
    _switched_on.add(app)


def announce(
    task: celery.Task[Any, Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    state: str | None,
    outcome: object,
) -> None:
    """Announce how the billing of a delivery ended. Never raises, never waits."""
    try:
        if not isinstance(task, BillableTask) or task.sku is None or task.request.is_eager:
            return
        app = app_of(task)
        if not (app.conf.worker_send_task_events or app in _switched_on):
            return
        run = run_of(task)
        fields = of_refusal(task, args, kwargs, state, outcome) if run is None else of_run(run)
        if fields is not None:
            _sender(app, task.request.hostname or "").send(TYPE, {"uuid": task.request.id, **fields})
    except Exception:
        logger.exception("billing: the task event of %s is not sent", getattr(task, "name", task))


def close() -> None:
    """Send what waits, for a bounded time, before the process ends."""
    senders = _senders.made or {}
    while senders:
        senders.popitem()[1].close(_CLOSE_SECONDS)


def _sender(app: celery.Celery, hostname: str) -> EventSender:
    senders = _senders.get()
    key = id(app), hostname
    found = senders.get(key)
    # Two threads of a pool may each make one; one of them stays, and it starts nothing before it is used.
    return found if found is not None else senders.setdefault(key, EventSender(app, hostname))
