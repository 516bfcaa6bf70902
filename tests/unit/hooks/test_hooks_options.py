"""A task is billed by options of its own, wherever they are set, and for as long. Eager runs, billed by a twin."""

from __future__ import annotations

from typing import Any
from unittest import mock

import celery
import pytest

from billing import BillableTask, InvalidValue
from billing.testing import BillingTwin
from tests.unit.hooks.billed import BODIES, is_billed, sold
from tests.unit.selling import an_app


def test_class_based_tasks_are_billed_by_the_run_that_resolves(app: celery.Celery, twin: BillingTwin) -> None:
    """Given a class-based task without a name whose `run` a mixin overrides, then it is billed, under its own name."""

    class Faster:
        def run(self, client_id: str, pages: int = 2) -> str:
            BODIES.append(client_id)
            return client_id

    class Search(Faster, BillableTask):
        sku = "page"

        @staticmethod
        def quantity(client_id: str, pages: int) -> int:  # noqa: ARG004 - as the body
            return pages

    task: Any = app.register_task(Search())
    twin.grant("poor", 5)
    is_billed(twin, task, charged=10)
    assert {event.task for event in twin.events()} == {task.name} == {f"{__name__}.Search"}


def test_two_tasks_of_one_class_have_options_of_their_own(app: celery.Celery, twin: BillingTwin) -> None:
    """Given options set in `__init__`, then each task is billed by its own; a wrong one is refused when it is set."""

    class Search(BillableTask):
        def __init__(self, name: str, credits_: int) -> None:
            self.name, self.sku, self.credits = name, name, credits_  # type: ignore[misc]

        def run(self, client_id: str) -> None:
            """Do nothing."""

    tasks: list[Any] = [app.register_task(Search(name, n)) for name, n in (("a", 7), ("b", 9))]
    for task in tasks:
        task.apply(args=("acme",)).get()
    assert [(event.task, event.lines[0].credits) for event in twin.events()] == [("a", 7), ("b", 9)]
    tasks[0].credits = 8
    with pytest.raises(InvalidValue, match="task a: credits: -1"):
        tasks[0].credits = -1
    tasks[0].apply(args=("acme",)).get()
    assert twin.charged("acme") == 24
    with mock.patch.object(tasks[0], "credits", 2):
        tasks[0].apply(args=("acme",)).get()
    assert twin.charged("acme") == 26
    tasks[0].apply(args=("acme",)).get()
    assert twin.charged("acme") == 34


def test_an_option_of_a_patch_ends_with_it(app: celery.Celery, twin: BillingTwin) -> None:
    """Given options of the class that are patched on the task, then they count for as long; no patch unbills it."""
    task = sold(app)

    with mock.patch.object(task, "quantity", 3):
        task.apply(args=("acme",)).get()
    task.apply(args=("acme",)).get()
    with pytest.raises(InvalidValue, match="task sold: sku"):
        task.sku = None

    assert [event.lines[0].quantity for event in twin.events()] == [3, 1]


def test_a_task_without_a_sku_takes_any_option(app: celery.Celery, twin: BillingTwin) -> None:
    """Given an unbilled task, when options are set on it, then they wait for a SKU, and count once it has one."""

    def body(client_id: str) -> None:
        """Do nothing."""

    decorate: Any = app.task(shared=False, name="later", base=BillableTask)
    task = decorate(body)
    task.quantity = 2
    task.apply(args=("acme",)).get()
    assert twin.events() == []

    task.sku = "page"
    task.apply(args=("acme",)).get()
    assert twin.charged("acme") == 10


def test_celerys_own_tasks_pass_through_unbilled(twin: BillingTwin) -> None:
    """Given an app whose default class sells a page, then its built-in tasks are free, and its own are not."""

    class Sold(BillableTask):
        abstract = True
        sku = "page"

    with an_app(task_cls=Sold) as app:

        @app.task(shared=False, name="ours")
        def ours(client_id: str) -> str:
            BODIES.append(client_id)
            return client_id

        app.finalize()
        own = {name for name, task in app.tasks.items() if isinstance(task, BillableTask) and task.sku is not None}
        # Shared tasks of other modules, which this process may have imported, are theirs.
        assert "ours" in own
        assert not {name for name in own if name.startswith("celery.")}
        assert app.tasks["celery.backend_cleanup"].apply().get() is None
        assert isinstance(app.tasks["celery.backend_cleanup"], Sold)
        is_billed(twin, app.tasks["ours"])
