"""Celery's own tasks that call another task's body directly: they refuse billable ones (L3).

`BillableTask.map` and `starmap` raise where they are called; this is for a canvas that was made by hand, or elsewhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import celery
from celery.canvas import maybe_signature

#: By name of the task, the canvas that sends it. `celery.chunks` sends the second.
_CALLS: Final = {"celery.map": "map", "celery.starmap": "starmap"}
#: Raises for a task that must not be called so, named with the call.
Check = Callable[[Any, str], None]


def guard_inline_calls(app: celery.Celery, check: Check) -> None:
    """Have an app's `celery.map` and `celery.starmap` check whose body they call; doing so again changes nothing."""
    for name, call in _CALLS.items():
        task: Any = app.tasks.get(name)
        if task is not None and not hasattr(task.run, "billing_checks"):
            task.run = _checking(app, task.run, call, check)


def _checking(app: celery.Celery, body: Callable[..., Any], call: str, check: Check) -> Callable[..., Any]:
    @functools.wraps(body)
    def run(task: Any, *args: Any, **kwargs: Any) -> Any:
        signature: Any = maybe_signature(task, app=app)
        check(app.tasks.get(signature.task), call)
        return body(task, *args, **kwargs)

    vars(run)["billing_checks"] = True
    return run
