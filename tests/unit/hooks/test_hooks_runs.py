"""A run that succeeds is charged once, whatever its hooks raise, and whatever calls its body (L3). Eager, on a twin."""

from __future__ import annotations

import contextlib
import sys
from types import ModuleType
from typing import Any

import celery
import pytest

import billing
from billing import BillableTask
from billing.testing import BillingTwin
from tests.unit.hooks.billed import BODIES, sold
from tests.unit.hooks.overriding import (
    CallsRun,
    CallsSuper,
    Raising,
)


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_hooks_that_raise_neither_lose_nor_double_a_charge(
    app: celery.Celery, twin: BillingTwin, failures: int
) -> None:
    """Given hooks after the end that all raise, then a run that succeeds is charged once, and no other."""
    succeeded: list[str] = []

    def body(self: Any, client_id: str) -> None:
        if self.request.retries < failures:
            raise ValueError(client_id)
        succeeded.append(client_id)

    decorate: Any = app.task(
        shared=False,
        name="raises",
        bind=True,
        base=Raising,
        sku="page",
        autoretry_for=(ValueError,),
        retry_kwargs={"max_retries": 1, "countdown": 0},
    )
    # What the caller sees is Celery's affair, and not the same in its versions.
    with contextlib.suppress(RuntimeError, ValueError):
        decorate(body).apply(args=("acme",))
    assert (twin.charged("acme"), len(twin.events())) == (5 * len(succeeded), len(succeeded))
    assert (twin.holds("acme"), bool(succeeded)) == ([], failures == 0)


@pytest.mark.parametrize("base", [CallsRun, CallsSuper, BillableTask])
def test_usage_is_recorded_whatever_calls_the_body(
    app: celery.Celery, twin: BillingTwin, base: type[BillableTask]
) -> None:
    """Given `__call__` overridden with and without super(), when the body records, then that is charged."""

    def body(self: Any, client_id: str) -> None:
        self.usage.record(2)
        billing.usage.record(1)

    decorate: Any = app.task(shared=False, name="records", bind=True, base=base, sku="page")
    decorate(body).apply(args=("acme",)).get()

    assert twin.charged("acme") == 15


def test_a_task_that_is_called_in_a_run_of_another_is_no_run(app: celery.Celery, twin: BillingTwin) -> None:
    """Given a direct call of a second task in a run, when it records by itself, then it is told that it has no run."""

    def inner(self: Any, client_id: str) -> None:
        self.usage.record(2)

    decorate: Any = app.task(shared=False, name="inner", bind=True, base=BillableTask, sku="page")
    inside = decorate(inner)

    def outer(client_id: str) -> None:
        inside(client_id)

    decorate = app.task(shared=False, name="outer", base=BillableTask, sku="page")
    with pytest.raises(billing.BillingError, match="outside a billed run"):
        decorate(outer).apply(args=("acme",)).get()
    assert twin.events() == []


@pytest.mark.parametrize("call", ["map", "starmap"])
def test_a_canvas_that_calls_bodies_inline_is_refused_by_the_worker_too(
    app: celery.Celery, twin: BillingTwin, call: str
) -> None:
    """Given `celery.xmap` made by hand, whose message runs bodies without hooks, then it is refused where it runs."""
    task = sold(app)
    made = {"map": celery.xmap, "starmap": celery.xstarmap}[call]
    before = len(BODIES)

    with pytest.raises(billing.BillingError, match=rf"task sold: {call}\(\).*celery\.group"):
        made(task.s(), [("acme",)], app=app).apply().get()
    assert (len(BODIES), twin.events()) == (before, [])


def test_a_pydantic_task_that_retries_by_itself_is_charged_once(
    app: celery.Celery, twin: BillingTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given `pydantic=True` and `autoretry_for`, then cost functions see what is sent, and the success is one charge.

    Pydantic itself is no dependency: the stand-in has the methods that Celery calls.
    """

    class BaseModel:
        def __init__(self, pages: int) -> None:
            self.pages = pages

        @classmethod
        def model_validate(cls, value: dict[str, int], **_: Any) -> BaseModel:
            return cls(**value)

        def model_dump(self, **_: Any) -> dict[str, int]:
            return {"pages": self.pages}

    pydantic = ModuleType("pydantic")
    vars(pydantic)["BaseModel"] = BaseModel
    monkeypatch.setitem(sys.modules, "pydantic", pydantic)
    attempts: list[int] = []

    class Order(BaseModel):
        """What is ordered."""

    def body(client_id: str, order: Any) -> None:
        attempts.append(order.pages)
        if len(attempts) < 3:
            raise ValueError(client_id)

    body.__annotations__["order"] = Order
    decorate: Any = app.task(
        shared=False,
        name="orders",
        base=BillableTask,
        sku="page",
        pydantic=True,
        autoretry_for=(ValueError,),
        retry_kwargs={"countdown": 0},
        quantity=lambda client_id, order: order["pages"],
    )
    decorate(body).apply(args=("acme", {"pages": 4})).get()

    assert (attempts, twin.charged("acme")) == ([4, 4, 4], 20)
    assert [event.attempt for event in twin.events()] == [3]
