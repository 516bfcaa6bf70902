"""Functions as options: which fit a task, found out when the app finalizes, for every form of body and of function."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Self

import celery
import pytest

from billing import BillableTask
from billing.core.errors import InvalidValue

CALL: tuple[list[Any], dict[str, Any]] = (["acme", 4], {})


@pytest.fixture
def app() -> Iterator[celery.Celery]:
    """Make an app that nothing is published with."""
    with celery.Celery("costs", broker="memory://", set_as_current=False) as app:
        yield app


def declared(app: celery.Celery, body: Callable[..., Any], *, bind: bool = False, **options: Any) -> Any:
    """Declare a task, and let the app finalize."""
    decorate: Any = app.task(shared=False, name="sold", bind=bind, base=BillableTask, sku="page", **options)
    task = decorate(body)
    app.finalize()
    return app.tasks[task.name]


def plain(client_id: str, pages: int) -> None: ...
def bound(self: Any, client_id: str, pages: int) -> None: ...
def defaulted(client_id: str, pages: int = 1) -> None: ...
def named(client_id: str, *, pages: int = 1) -> None: ...
def positional(client_id: str, pages: int, /) -> None: ...
def any_number(client_id: str, *pages: int) -> None: ...
def any_name(client_id: str, **pages: int) -> None: ...
def anything(*args: Any, **kwargs: Any) -> None: ...


@functools.wraps(plain)
def decorated(*args: Any, **kwargs: Any) -> None: ...


class Tariff:
    """Has functions of all kinds."""

    def __call__(self, client_id: str, pages: int) -> int:
        """Be an object that is called."""
        return len(client_id) + pages - 4

    def method(self, client_id: str, pages: int) -> int:
        """Be a method."""
        return len(client_id) + pages - 4

    @classmethod
    def of_class(cls, client_id: str, pages: int) -> int:
        """Be a method of the class."""
        return len(client_id) + pages - 4

    @staticmethod
    def static(client_id: str, pages: int) -> int:
        """Be a function in the class."""
        return len(client_id) + pages - 4


class Whole(int):
    """A class that is called like a function."""

    def __new__(cls, client_id: str, pages: int) -> Self:
        """Return the pages."""
        return super().__new__(cls, len(client_id) + pages - 4)


def scaled(factor: int, client_id: str, pages: int) -> int:
    """Take one argument more than the task has."""
    return factor * pages


FUNCTIONS: list[Any] = [
    lambda client_id, pages: pages,
    lambda who, how_many, more=1: how_many,
    lambda *call: call[1],
    lambda *call, **named: call[1],
    Tariff(),
    Tariff().method,
    Tariff.of_class,
    Tariff.static,
    Whole,
    functools.partial(scaled, 1),
]


@pytest.mark.parametrize("body", [plain, bound, defaulted, positional, decorated], ids=lambda body: body.__name__)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: getattr(function, "__qualname__", "object"))
def test_a_function_of_any_kind_gets_the_tasks_arguments(app: celery.Celery, body: Any, function: Any) -> None:
    """Given two arguments of a task, then a function, method, class, partial or object is called with both."""
    task = declared(app, body, bind=body is bound, quantity=function, reserve=function)

    assert (task.definition.charged_by_default(*CALL), task.definition.held_at_most(*CALL)) == (4, {"page": 4})


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: getattr(function, "__qualname__", "object"))
def test_a_function_in_a_class_body_gets_them_too(app: celery.Celery, function: Any) -> None:
    """Given a class-based task, and a mixin that has the function, then neither makes a method of it."""

    class Prices:
        quantity = function

    class Search(Prices, BillableTask):
        name, sku = "search", "page"

        def run(self, client_id: str, pages: int) -> None:
            """Do nothing."""

    task: Any = app.register_task(Search())

    assert task.definition.charged_by_default(*CALL) == 4


RIGHT: list[tuple[Any, Any, dict[str, Any]]] = [
    (named, lambda client_id, *, pages: pages, {"pages": 4}),
    (named, lambda client_id, **options: options["pages"], {"pages": 4}),
    (named, lambda client_id, pages: pages, {"pages": 4}),
    (any_number, lambda client_id, *pages: len(pages), {}),
    (any_name, lambda client_id, **pages: len(pages), {"a": 1, "b": 2}),
    (anything, lambda *args, **kwargs: len(args) + len(kwargs), {"client_id": "acme"}),
]


@pytest.mark.parametrize(("body", "function", "kwargs"), RIGHT)
def test_bodies_of_any_shape_have_functions_that_fit(
    app: celery.Celery, body: Any, function: Any, kwargs: dict[str, Any]
) -> None:
    """Given keyword-only and variable arguments, then a function of the same shape is taken, and called with them."""
    task = declared(app, body, quantity=function)

    args = [] if body is anything else ["acme"]
    assert isinstance(task.definition.charged_by_default(args, kwargs), int)


WRONG: list[tuple[Any, Any, str]] = [
    (plain, lambda client_id: 1, "client_id, pages"),
    (plain, lambda self, client_id, pages: 1, "client_id, pages"),
    (plain, lambda *, client_id, pages: 1, "client_id, pages"),
    (plain, scaled, "client_id, pages"),
    (plain, Tariff.method, "client_id, pages"),
    (plain, int, "client_id, pages"),
    (plain, functools.partial(scaled, 1, "acme"), "client_id, pages"),
    (bound, lambda self, client_id, pages: 1, "client_id, pages"),
    (named, lambda client_id, *, size: 1, "client_id, pages"),
    (any_number, lambda client_id: 1, "client_id, *pages"),
    (any_number, lambda client_id, first=1, second=2: 1, "client_id, *pages"),
    (any_name, lambda client_id: 1, "client_id, **pages"),
    (anything, lambda client_id, pages: 1, "*args, **kwargs"),
    (anything, lambda *args: 1, "*args, **kwargs"),
]


@pytest.mark.parametrize("option", ["sku", "quantity", "reserve"])
@pytest.mark.parametrize(("body", "function", "arguments"), WRONG)
def test_a_function_that_cannot_take_every_call_is_refused_when_the_app_finalizes(
    app: celery.Celery, option: str, body: Any, function: Any, arguments: str
) -> None:
    """Given a function of another signature, then one line names task, option, function, and the task's arguments."""
    options = {"bind": body is bound, option: function}
    decorate: Any = app.task(shared=False, name="sold", base=BillableTask, **{"sku": "page", **options})
    task = decorate(body)
    with pytest.raises(InvalidValue) as refused:
        _ = task.name  # what Celery made lazily is made, at the latest when the app finalizes

    assert refused.value.field == f"task sold: {option}"
    assert refused.value.rule == f"must take the task's arguments ({arguments})"
    assert isinstance(refused.value.value, str)


def test_a_method_in_a_class_body_is_told_that_it_has_no_self(app: celery.Celery) -> None:
    """Given a `quantity` written as a method, then it is refused by the arguments that it should take."""

    class Search(BillableTask):
        name, sku = "search", "page"

        def run(self, client_id: str) -> None:
            """Do nothing."""

        def quantity(self, client_id: str) -> int:
            return 1

    with pytest.raises(InvalidValue, match=r"task search: quantity: 'quantity': .*\(client_id\)"):
        app.register_task(Search())
