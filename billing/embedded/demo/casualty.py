"""Kills one worker process with SIGKILL while it runs a task, as the kernel does when memory runs out.

The process is stopped first, so that what it runs is known for certain when it dies. Its task must come back by
redelivery and be charged once (L3).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
from typing import Any, Final

import celery
from celery.utils.nodenames import gethostname

REPLY_SECONDS: Final = 3.0
TRIES: Final = 5


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Casualty:
    """The process that was killed, and the tasks that it was running."""

    pid: int
    task_ids: tuple[str, ...]


def kill_one(app: celery.Celery, worker: str) -> Casualty | None:
    """Kill a prefork process of the worker named `worker` while it runs a task; None if none could be caught at it."""
    node = f"{worker}@{gethostname()}"
    inspect: Any = app.control.inspect(destination=[node], timeout=REPLY_SECONDS)
    for _ in range(TRIES):
        for task in (inspect.active() or {}).get(node, ()):
            casualty = _kill_if_still_busy(inspect, node, int(task["worker_pid"]))
            if casualty is not None:
                return casualty
    return None


def _kill_if_still_busy(inspect: Any, node: str, pid: int) -> Casualty | None:
    try:
        os.kill(pid, signal.SIGSTOP)
    except ProcessLookupError:
        return None
    try:
        running = (inspect.active() or {}).get(node, ())
        task_ids = tuple(str(task["id"]) for task in running if task["worker_pid"] == pid)
        if task_ids:
            os.kill(pid, signal.SIGKILL)
            return Casualty(pid=pid, task_ids=task_ids)
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
