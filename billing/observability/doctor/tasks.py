"""The tasks of an app: those that acknowledge early lose their work with their worker, and the charge with it (L3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from billing.observability.doctor.finding import Finding, ok, warn
from billing.task.billable import BillableTask


def examine_tasks(app: Any) -> Iterator[Finding]:
    """Look at every billable task."""
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
