"""No class, option, annotation or patch in place of a hook switches billing off (L3). Eager runs, billed by a twin."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from unittest import mock

import celery
import pytest

from billing import BillableTask
from billing.testing import BillingTwin
from tests.unit.hooks.billed import is_billed, sold
from tests.unit.hooks.overriding import (
    Calling,
    CallsRun,
    CallsSuper,
    Copying,
    Mixed,
    Overriding,
    Quiet,
    Static,
    Unbound,
    does_nothing,
)


@pytest.mark.parametrize(
    "base",
    [Overriding, Calling, Copying, Mixed, Static, Quiet, Unbound, CallsRun, CallsSuper],
    ids=lambda base: base.__name__,
)
def test_no_class_switches_billing_off(app: celery.Celery, twin: BillingTwin, base: type[BillableTask]) -> None:
    """Given a class that overrides hooks with or without super(), then its tasks are admitted and charged once."""
    is_billed(twin, sold(app, base))


@pytest.mark.parametrize("base", [Quiet, Unbound])
def test_no_option_of_a_class_that_breaks_the_chain_switches_billing_off(
    app: celery.Celery, twin: BillingTwin, base: type[BillableTask]
) -> None:
    """Given hooks in the decorator under a class whose `__init_subclass__` or `bind` does not call super()."""
    if base is Unbound:
        # Nobody wraps what both overrides keep from billing: the work is charged late, and loudly.
        task = sold(app, base, before_start=does_nothing)
        task.apply(args=("acme",)).get()
        assert [event.late for event in twin.events("acme")] == [True]
    else:
        is_billed(twin, sold(app, base, before_start=does_nothing, on_success=does_nothing))


@pytest.mark.parametrize("kind", ["function", "partial", "mock"])
def test_no_hook_in_the_decorator_or_on_the_task_switches_billing_off(
    app: celery.Celery, twin: BillingTwin, kind: str
) -> None:
    """Given hooks as options, and others assigned to the task afterwards, then billing stands in front of them."""
    own = mock.Mock()
    made: dict[str, Callable[[], Any]] = {
        "function": lambda: lambda task_id, *call: own(task_id, *call),  # noqa: PLW0108 - a function, not the mock
        "partial": lambda: functools.partial(own, "more"),
        "mock": lambda: own,
    }
    task = sold(app, before_start=made[kind](), on_success=made[kind]())
    is_billed(twin, task)
    assert own.call_count == 2
    task.before_start, task.on_success = made[kind](), made[kind]()
    is_billed(twin, task)
    assert own.call_count == 4
    with mock.patch.object(task, "before_start"), mock.patch.object(task, "on_success"):
        is_billed(twin, task)
    is_billed(twin, task)


class Annotate:
    """Annotates every task, as the class form of `task_annotations` does."""

    def annotate(self, task: Any) -> dict[str, Any] | None:
        """Return what replaces the attributes of a task."""
        return {"before_start": does_nothing, "on_success": does_nothing} if task.name == "sold" else None

    def annotate_any(self) -> None:
        """Annotate none."""


def around(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Replace a hook, and seem to be it."""

    @functools.wraps(hook)
    def replaced(*_: Any) -> None:
        """Do nothing."""

    return replaced


@pytest.mark.parametrize(
    "annotations",
    [
        {"sold": {"before_start": does_nothing, "on_success": does_nothing}},
        {"*": {"before_start": does_nothing, "on_success": does_nothing}},
        {"*": {"@before_start": around, "@on_success": around}},
        (Annotate(), {"*": {"before_start": does_nothing}}),
    ],
    ids=["by name", "for all", "around", "classes"],
)
def test_no_annotation_switches_billing_off(app: celery.Celery, twin: BillingTwin, annotations: Any) -> None:
    """Given any form of `task_annotations`, then billing stands in front of what they put in place."""
    app.conf.task_annotations = annotations
    is_billed(twin, sold(app))


def test_a_hook_that_is_set_on_the_bound_class_costs_the_reservation_not_the_charge(
    app: celery.Celery, twin: BillingTwin, caplog: pytest.LogCaptureFixture
) -> None:
    """Given `before_start` set on the class of a bound task, then a success is charged late, and an error is logged."""
    task = sold(app)
    type(task).before_start = does_nothing

    task.apply(args=("acme",)).get()

    (event,) = twin.events("acme")
    assert (event.late, twin.charged("acme")) == (True, 5)
    assert "sold" in caplog.text
    assert "charged late" in caplog.text
