"""The task that is submitted: it has a client, pages and usage by keyword, and returns what headers it came with."""

from __future__ import annotations

from typing import Any

import celery

from billing import BillableTask


def sold(app: celery.Celery, **options: Any) -> Any:
    """Declare a task by the decorator."""

    def body(self: Any, client_id: str | None = None, pages: int = 1, *, used: int | None = None) -> Any:
        if used is not None:
            self.usage.record(used)
        return {name: value for name, value in (self.request.headers or {}).items() if name.startswith("billing_")}

    decorate: Any = app.task(shared=False, name="sold", bind=True, base=BillableTask, **{"sku": "page", **options})
    task = decorate(body)
    app.finalize()
    return app.tasks[task.name]
