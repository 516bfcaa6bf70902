"""A task that sells a page, and the law that it is held to: no body runs that cannot pay, a success is one charge."""

from __future__ import annotations

from typing import Any

import celery
import pytest

from billing import BillableTask, InsufficientCredits
from billing.testing import BillingTwin

#: Which bodies ran.
BODIES: list[str] = []


def sold(app: celery.Celery, base: Any = BillableTask, **options: Any) -> Any:
    """Declare a task by the decorator."""

    def body(client_id: str) -> str:
        BODIES.append(client_id)
        return client_id

    decorate: Any = app.task(shared=False, name="sold", base=base, sku="page", **options)
    task = decorate(body)
    app.finalize()
    return app.tasks[task.name]


def is_billed(twin: BillingTwin, task: Any, *, charged: int = 5) -> None:
    """Hold a task to the law: no body runs that cannot pay, and each success is one charge."""
    before = len(twin.events())
    ran = len(BODIES)
    with pytest.raises(InsufficientCredits):
        task.apply(args=("poor",)).get()
    assert (len(BODIES), len(twin.events())) == (ran, before)
    task.apply(args=("acme",))
    (event,) = twin.events()[before:]
    assert (event.late, sum(line.credits for line in event.lines), len(BODIES)) == (False, charged, ran + 1)
    assert (twin.holds("acme"), twin.holds("poor")) == ([], [])
