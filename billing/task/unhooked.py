"""Calls that would run a billable task's body without its hooks, and so unbilled: refused (L3)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, NoReturn

import celery
from celery.canvas import maybe_signature

from billing.core.errors import Rejected

#: Celery's own tasks that call another task's body directly, by the name of the canvas that sends them.
_INLINE: Final = {"celery.map": "map", "celery.starmap": "starmap"}


class Unhooked(Rejected):
    """The call would run a billable task's body without its hooks."""


def refuse_unhooked(task: str, call: str) -> NoReturn:
    """Raise for a call of `map`, `starmap` or `chunks`."""
    raise Unhooked(f"task {task}: {call}() would run it unbilled: use celery.group of signatures instead")


def guard_inline_calls(app: celery.Celery, is_billed: Callable[[Any], bool]) -> None:
    """Have the app's `celery.map` and `celery.starmap` refuse billable tasks, however their messages were made."""
    for name, call in _INLINE.items():
        task: Any = app.tasks[name]
        if not hasattr(task.run, "billing_guards"):
            task.run = _guarded(app, task.run, call, is_billed)


def _guarded(
    app: celery.Celery, body: Callable[..., Any], call: str, is_billed: Callable[[Any], bool]
) -> Callable[..., Any]:
    @functools.wraps(body)
    def run(task: Any, *args: Any, **kwargs: Any) -> Any:
        signature: Any = maybe_signature(task, app=app)
        if is_billed(app.tasks.get(signature.task)):
            refuse_unhooked(signature.task, call)
        return body(task, *args, **kwargs)

    vars(run)["billing_guards"] = True
    return run
