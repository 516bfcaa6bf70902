"""Reads what the result backend says of a task: its state, its error, its worker. Bounded, whichever backend it is."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import TimeoutError as NotInTime
from typing import Any, Final

from celery import states
from celery.backends.base import DisabledBackend

from billing.core.apart import call_apart
from billing.core.errors import BillingError, Unreachable
from billing.explaining.evidence import Result
from billing.task.stored_results import stored_at

#: Backends try again for a long time by themselves; an operator has a minute (L9).
WAIT_SECONDS: Final = 10.0
_ERROR_MAX: Final = 300
_RPC: Final = "rpc"


def why_not(app: Any) -> str:
    """Return why an app's results cannot be asked for, or nothing."""
    if app is None:
        return "no app was given (-A)"
    if isinstance(app.backend, DisabledBackend):
        return "the app has no result backend"
    if str(app.conf.result_backend or "").startswith(_RPC):
        return "results of the rpc backend reach their caller alone"
    return ""


def read_result(app: Any, task_id: str) -> Result | None:
    """Return what the backend says; None for a task that it does not know. Raises `Unreachable`."""
    try:
        asked = call_apart(lambda: result_of(app.backend.get_task_meta(task_id)), name="billing-explain-result")
        return asked.result(timeout=WAIT_SECONDS)
    except NotInTime as error:
        raise Unreachable(f"the result backend has not answered within {WAIT_SECONDS:.0f} s") from error
    except Exception as error:
        raise Unreachable(f"the result backend cannot be read: {type(error).__name__}") from error


def result_of(meta: Mapping[str, Any]) -> Result | None:
    """Return what a record says; None for what Celery makes up of a task that it does not know."""
    state = str(meta.get("status") or states.PENDING)
    if state == states.PENDING:
        return None
    failed = meta.get("result") if state in states.EXCEPTION_STATES else None
    return Result(
        state=state,
        error="" if failed is None else _said(failed),
        kind="" if failed is None else type(failed).__name__,
        client_id=str(getattr(failed, "client_id", "")) if isinstance(failed, BillingError) else "",
        stored_at=stored_at(meta.get("date_done")),
        worker=str(meta.get("worker") or ""),
        name=str(meta.get("name") or ""),
    )


def _said(error: object) -> str:
    text = " ".join(str(error).split())[:_ERROR_MAX]
    return text if isinstance(error, BillingError) else f"{type(error).__name__}: {text}".removesuffix(": ")
