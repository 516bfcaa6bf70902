"""Celery's `task_annotations` may replace hooks and options of a task; billing stays (L3)."""

from __future__ import annotations

from typing import Any

import celery
import pytest

import billing
from billing import BillableTask, InvalidValue
from billing.task.billable import _WRAPPED


def annotated(annotation: dict[str, Any]) -> Any:
    """Return a billable task under an annotation."""
    app = celery.Celery("annotated", broker="memory://", set_as_current=False)
    app.conf.task_annotations = {"sold": annotation}
    billing.setup(app)

    @app.task(name="sold", base=BillableTask, sku="page", shared=False)
    def sold(client_id: str) -> None:
        """Do nothing."""

    return app.tasks["sold"]


def test_hooks_that_are_annotated_are_wrapped_again() -> None:
    """Given hooks from the configuration, then billing stands in front of them."""
    called: list[str] = []
    task = annotated({"before_start": lambda *_: called.append("own"), "on_success": lambda *_: called.append("own")})

    assert hasattr(type(task).before_start, _WRAPPED)
    assert hasattr(type(task).on_success, _WRAPPED)
    type(task).on_success(task, None, "id", (), {})
    assert called == ["own"]


def test_an_annotated_option_counts_and_is_checked() -> None:
    """Given a SKU or a quantity from the configuration, then that is sold, or refused when the app finalizes."""
    assert annotated({"sku": "report", "quantity": 3}).definition.sku == "report"
    with pytest.raises(InvalidValue, match="task sold: quantity: -1"):
        annotated({"quantity": -1})
