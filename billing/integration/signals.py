"""Celery's signals, connected once per process for all apps that are set up.

Signals cannot gate (Celery logs and swallows what they raise), so they only mint headers, settle once more where a
hook was lost, and end deliveries.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import celery
from celery import signals

from billing.integration.configuration import hide_passwords
from billing.integration.metrics_step import enter_pool
from billing.observability.task_events import announcing
from billing.task.attachment import all_attachments, is_attached
from billing.task.billable import end_current, settle_current
from billing.task.headers import mint
from billing.task.overrides import carry_over

logger = logging.getLogger(__name__)


def connect() -> None:
    """Connect every handler; doing so again changes nothing."""
    signals.before_task_publish.connect(_mint_headers, weak=False, dispatch_uid="billing.mint")
    signals.task_success.connect(_settle_again, weak=False, dispatch_uid="billing.settle")
    signals.task_postrun.connect(_end, weak=False, dispatch_uid="billing.end")
    signals.import_modules.connect(_hide_passwords, weak=False, dispatch_uid="billing.hide")
    signals.worker_init.connect(_switch_announcing, weak=False, dispatch_uid="billing.announce")
    signals.worker_process_init.connect(_enter_pool, weak=False, dispatch_uid="billing.metrics.enter")
    signals.worker_process_shutdown.connect(_pay, weak=False, dispatch_uid="billing.pay")
    signals.worker_shutdown.connect(_pay, weak=False, dispatch_uid="billing.pay_main")


def hide_passwords_of(app: celery.Celery) -> None:
    """Hide the passwords of an app that has its configuration; of another one as soon as it has."""
    if app.configured:  # type: ignore[attr-defined]  # the stubs lack it
        hide_passwords(app)
    else:
        app.on_after_configure.connect(_hide_passwords)


def _mint_headers(headers: dict[str, Any] | None = None, properties: dict[str, Any] | None = None, **_: Any) -> None:
    if headers is None:
        return
    carry_over(headers, {} if properties is None else properties)
    task = celery.current_task
    inside = bool(task) and task.request.id is not None and not task.request.called_directly
    mint(headers, task.request if inside else None, time.time_ns() // 1_000_000)


def _settle_again(sender: Any = None, **_: Any) -> None:
    settle_current(sender)


def _end(
    task: Any = None, args: Any = (), kwargs: Any = None, state: str | None = None, retval: object = None, **_: Any
) -> None:
    end_current(task, state, retval)
    announcing.announce(task, args, kwargs or {}, state, retval)


def _switch_announcing(sender: Any = None, **_: Any) -> None:
    if sender is not None and sender.task_events and is_attached(sender.app):
        announcing.switch_on(sender.app)


def _hide_passwords(sender: Any = None, source: Any = None, **_: Any) -> None:
    if sender is not None and is_attached(sender):
        hide_passwords(sender, source)


def _enter_pool(**_: Any) -> None:
    enter_pool()


def _pay(**_: Any) -> None:
    for attachment in all_attachments():
        lifecycle = attachment.lifecycle_if_used
        if lifecycle is not None:
            lifecycle.close()
    announcing.close()
