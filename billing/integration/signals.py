"""Celery's signals, connected once per process for all apps that are set up.

Signals cannot gate (Celery logs and swallows what they raise), so they only mint headers, settle once more where a
hook was lost, and end deliveries.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any

import celery
from celery import signals

from billing.core.errors import BillingError
from billing.task.attachment import all_attachments, attachment_of, is_attached
from billing.task.billable import end_current, settle_current
from billing.task.headers import mint

logger = logging.getLogger(__name__)


def connect() -> None:
    """Connect every handler; doing so again changes nothing."""
    signals.before_task_publish.connect(_mint_headers, weak=False, dispatch_uid="billing.mint")
    signals.task_success.connect(_settle_again, weak=False, dispatch_uid="billing.settle")
    signals.task_postrun.connect(_end, weak=False, dispatch_uid="billing.end")
    signals.import_modules.connect(_hide_passwords, weak=False, dispatch_uid="billing.hide")
    signals.worker_process_shutdown.connect(_pay, weak=False, dispatch_uid="billing.pay")
    signals.worker_shutdown.connect(_pay, weak=False, dispatch_uid="billing.pay_main")


def _mint_headers(headers: dict[str, Any] | None = None, **_: Any) -> None:
    if headers is None:
        return
    task = celery.current_task
    inside = bool(task) and task.request.id is not None and not task.request.called_directly
    mint(headers, task.request if inside else None, time.time_ns() // 1_000_000)


def _settle_again(sender: Any = None, **_: Any) -> None:
    settle_current(sender)


def _end(task: Any = None, state: str | None = None, retval: object = None, **_: Any) -> None:
    end_current(task, state, retval)


def _hide_passwords(sender: Any = None, **_: Any) -> None:
    if sender is not None and is_attached(sender):
        # A wrong setting is reported by the worker's start, not here.
        with contextlib.suppress(BillingError):
            attachment_of(sender).runtime.settings  # noqa: B018 - reading hides them


def _pay(**_: Any) -> None:
    for attachment in all_attachments():
        lifecycle = attachment.lifecycle_if_used
        if lifecycle is not None:
            lifecycle.pending.pay()
