"""Nothing that a user may override switches billing off, or charges twice (L3). Eager runs, billed by a twin."""

from __future__ import annotations

import abc
import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any
from unittest import mock

import celery
import pytest

import billing
from billing import BillableTask, InsufficientCredits, InvalidValue
from billing.testing import BillingTwin


@pytest.fixture
def app() -> Iterator[celery.Celery]:
    """Make an app that nothing is published with."""
    with an_app() as app:
        yield app


def an_app(**options: Any) -> celery.Celery:
    """Return an app that is billed."""
    made = celery.Celery("hooks", broker="memory://", backend="cache+memory://", set_as_current=False, **options)
    return billing.setup(made)


@pytest.fixture
def twin() -> Iterator[BillingTwin]:
    """Bill by a twin: 5 credits a page."""
    twin = BillingTwin()
    twin.price("page", 5)
    twin.client("acme", 100)
    twin.client("poor", 4)
    with twin.billing():
        yield twin


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


def does_nothing(*_: Any) -> None:
    """Be a hook without super()."""


class Overriding(BillableTask):
    """Overrides both hooks, without super()."""

    def before_start(self, *_: Any) -> None:
        """Do nothing."""

    def on_success(self, *_: Any) -> None:
        """Do nothing."""


class Calling(BillableTask):
    """Overrides both hooks, with super(), by keyword."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Call the hook of the class above."""
        super().before_start(task_id, args=args, kwargs=kwargs)

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Call the hook of the class above."""
        super().on_success(retval=retval, task_id=task_id, args=args, kwargs=kwargs)


class Copying(BillableTask):
    """Overrides both hooks by functions that take on what the hooks of billing are marked with."""

    before_start: Any = functools.wraps(BillableTask.before_start)(lambda *_: None)
    on_success: Any = functools.wraps(BillableTask.on_success)(lambda *_: None)


class Mixin:
    """Comes before `BillableTask` in the order of resolution, and knows nothing of it."""

    def before_start(self, *_: Any) -> None:
        """Do nothing."""

    def on_success(self, *_: Any) -> None:
        """Do nothing."""


class Mixed(Mixin, BillableTask, abc.ABC):
    """Has a metaclass of its own as well."""


class Static(BillableTask):
    """Has hooks of other kinds."""

    before_start: Any = staticmethod(does_nothing)
    on_success: Any = functools.partial(does_nothing, "more")


class Quiet(BillableTask):
    """Does not tell the classes above of its subclasses."""

    def __init_subclass__(cls, **_: Any) -> None:
        """Do nothing."""


class Unbound(Quiet):
    """Binds past billing, too."""

    @classmethod
    def bind(cls, app: celery.Celery) -> Any:
        """Bind as Celery's own task does."""
        return celery.Task.bind.__func__(cls, app)  # type: ignore[attr-defined]


class Raising(BillableTask):
    """Raises in every hook that comes after the end."""

    def on_success(self, *_: Any) -> None:
        """Raise."""
        raise RuntimeError("on_success")

    def on_failure(self, *_: Any) -> None:
        """Raise."""
        raise RuntimeError("on_failure")

    def on_retry(self, *_: Any) -> None:
        """Raise."""
        raise RuntimeError("on_retry")

    def after_return(self, *_: Any) -> None:
        """Raise."""
        raise RuntimeError("after_return")


class CallsRun(BillableTask):
    """Overrides `__call__`, without super()."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body."""
        return self.run(*args, **kwargs)


class CallsSuper(BillableTask):
    """Overrides `__call__`, with super()."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run as Celery does."""
        return super().__call__(*args, **kwargs)


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
