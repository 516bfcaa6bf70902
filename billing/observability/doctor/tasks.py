"""The tasks of an app, and what its workers take for a message.

Tasks that acknowledge early lose their work with their worker, and the charge with it (L3). A worker that takes pickle
runs what anybody who may publish to its queues, or write to its result backend, tells it to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from kombu.serialization import prepare_accept_content

from billing.observability.doctor.finding import Finding, fail, ok, warn
from billing.task.billable import BillableTask

_PICKLE: Final = "application/x-python-serialize"


def examine_tasks(app: Any) -> Iterator[Finding]:
    """Look at every billable task, and at the content that is accepted."""
    # Celery imports an app's tasks in workers only.
    app.loader.import_default_modules()
    billable = [
        task
        for task in app.tasks.values()
        if isinstance(task, BillableTask) and task.sku is not None and not str(task.name).startswith("billing.")
    ]
    yield ok("tasks", f"{len(billable)} billable tasks in app {app.main}")
    for task in billable:
        if not task.acks_late or not task.reject_on_worker_lost:
            yield warn("tasks", f"{task.name} overrides acks_late or reject_on_worker_lost", "leave both on")
    yield from _content(app.conf)


def _content(conf: Any) -> Iterator[Finding]:
    for setting in ("accept_content", "result_accept_content"):
        if _PICKLE in (prepare_accept_content(conf[setting] or ()) or ()):
            seen = f"{setting} has pickle: whoever may write to the broker or the results runs code in each worker"
            yield fail("tasks", seen, 'take it out, and serialize tasks and results as "json"')
