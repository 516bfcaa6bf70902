"""What a billable task declares is checked when its app finalizes; what a call says, before its body runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import celery
import pytest

from billing import BillableTask
from billing.core.credits import CREDITS_MAX
from billing.core.errors import InvalidValue
from billing.task.definition import LINES_MAX, Definition, define


@pytest.fixture
def app() -> Iterator[celery.Celery]:
    """Make an app that nothing is published with."""
    app = celery.Celery("definitions", broker="memory://", set_as_current=False)
    yield app
    app.close()


def search(client_id: str, query: str, *, pages: int = 1) -> None:
    """Be the body of a task."""


def definition(run: Callable[..., Any] = search, **options: Any) -> Definition:
    """Return a checked declaration."""
    return define(task="search", options={"sku": "search", "client": "client_id", **options}, run=run)


def declared(app: celery.Celery, run: Callable[..., Any] = search, **options: Any) -> Any:
    """Declare a task as a user does, and let the app finalize."""
    decorate: Any = app.task(shared=False, name="search", base=BillableTask, **options)
    task = decorate(run)
    app.finalize()
    return app.tasks[task.name]


WRONG = [
    ({"sku": ""}, "sku"),
    ({"sku": "Page"}, "sku"),
    ({"sku": 5}, "sku"),
    ({"sku": lambda: "search"}, "sku"),
    ({"sku": lambda client_id: "search"}, "sku"),
    ({"sku": "search", "quantity": -1}, "quantity"),
    ({"sku": "search", "quantity": 1.5}, "quantity"),
    ({"sku": "search", "quantity": True}, "quantity"),
    ({"sku": "search", "quantity": "1"}, "quantity"),
    ({"sku": "search", "quantity": CREDITS_MAX + 1}, "quantity"),
    ({"sku": "search", "quantity": lambda: 1}, "quantity"),
    ({"sku": "search", "quantity": lambda client_id, query: 1}, "quantity"),
    ({"sku": "search", "quantity": lambda self, client_id, query, extra, *, pages: 1}, "quantity"),
    ({"sku": "search", "reserve": -1}, "reserve"),
    ({"sku": "search", "reserve": "5"}, "reserve"),
    ({"sku": "search", "reserve": {"Extra": 1}}, "reserve"),
    ({"sku": "search", "reserve": {"extra": -1}}, "reserve['extra']"),
    ({"sku": "search", "reserve": {"extra": 1.0}}, "reserve['extra']"),
    ({"sku": "search", "reserve": {f"sku-{number}": 1 for number in range(LINES_MAX + 1)}}, "reserve"),
    ({"sku": "search", "reserve": lambda query: 1}, "reserve"),
    ({"sku": "search", "client": "not a name"}, "client"),
    ({"sku": "search", "client": None}, "client"),
    ({"sku": "search", "client": 5}, "client"),
]


@pytest.mark.parametrize(("options", "option"), WRONG)
def test_a_wrong_declaration_is_refused_when_the_app_finalizes(
    app: celery.Celery, options: dict[str, Any], option: str
) -> None:
    """Given a wrong option, when the app finalizes, then one line names the task, the option and the rule."""
    with pytest.raises(InvalidValue) as refused:
        declared(app, **options)

    assert refused.value.field == f"task search: {option}"
    assert refused.value.rule.startswith("must ")
    assert "\n" not in str(refused.value)


def test_a_task_without_a_sku_is_not_billed(app: celery.Celery) -> None:
    """Given a shared base class without a SKU, then it finalizes and has no definition."""
    assert not hasattr(declared(app), "definition")


def test_a_callable_of_the_wrong_signature_is_told_the_tasks_arguments(app: celery.Celery) -> None:
    """Given a quantity that takes other arguments, then the refusal lists the right ones."""
    with pytest.raises(InvalidValue, match=r"must take the task's arguments \(client_id, query, pages\)"):
        declared(app, sku="search", quantity=lambda pages: pages)


def test_functions_in_the_decorator_do_not_become_methods(app: celery.Celery) -> None:
    """Given functions as options, when they are called, then they get the task's arguments without `self`."""
    seen: list[tuple[Any, ...]] = []

    def quantity(*args: Any, **kwargs: Any) -> int:
        seen.append((args, kwargs))
        return 3

    def most(*args: Any, **kwargs: Any) -> dict[str, int]:
        seen.append((args, kwargs))
        return {"search": 9, "extra": 2}

    task = declared(app, sku="search", quantity=quantity, reserve=most)

    assert task.definition.held_at_most(["acme", "cats"], {"pages": 2}) == {"search": 9, "extra": 2}
    assert seen == [(("acme", "cats"), {"pages": 2})] * 2


def test_functions_in_a_class_body_do_not_become_methods(app: celery.Celery) -> None:
    """Given a class-based task with a function as `quantity`, then it takes the arguments of `run` without `self`."""

    class Search(BillableTask):
        name = "search"
        sku = "search"

        def run(self, client_id: str, query: str) -> None:
            """Do nothing."""

        def quantity(client_id: str, query: str) -> int:  # type: ignore[misc]  # noqa: N805 - it is no method
            return len(query)

    task = app.register_task(cast("Any", Search()))

    assert task.definition.charged_by_default(["acme", "cats"], {}) == 4


def test_bound_and_unbound_tasks_have_the_same_definition(app: celery.Celery) -> None:
    """Given `bind=True`, then `self` is no argument of the task."""

    def bound(self: BillableTask, client_id: str, query: str) -> None:
        """Do nothing."""

    task = declared(app, bound, bind=True, sku="search", quantity=lambda client_id, query: len(query))

    assert task.definition.client_of(["acme", "cats"], {}, None) == "acme"
    assert task.definition.charged_by_default(["acme", "cats"], {}) == 4


def test_the_client_is_an_argument_a_keyword_or_the_header() -> None:
    """Given a call that names who pays in one place or in two that agree, then that client pays."""
    found = definition()

    assert found.client_of(["acme", "cats"], {}, None) == "acme"
    assert found.client_of([], {"query": "cats", "client_id": "acme"}, None) == "acme"
    assert found.client_of([], {"query": "cats"}, "acme") == "acme"
    assert found.client_of(["acme", "cats"], {}, "acme") == "acme"
    assert definition(client="query").client_of(["acme", "globex"], {}, None) == "globex"


def test_two_clients_are_refused() -> None:
    """Given an argument and a header that differ, then neither pays: the refusal names both."""
    with pytest.raises(InvalidValue) as refused:
        definition().client_of(["acme", "cats"], {}, "globex")

    assert str(refused.value) == "billing_client: 'globex': names another client than the argument 'client_id'"


def test_no_client_is_refused_with_task_and_sku() -> None:
    """Given a call without a client, then the refusal names the argument, the task, the SKU and the header."""
    with pytest.raises(InvalidValue) as refused:
        definition().client_of([], {"query": "cats"}, None)

    for name in ("client_id", "search", "billing_client"):
        assert name in str(refused.value)


@pytest.mark.parametrize("client_id", ["", "two words", 7, "x" * 129])
def test_a_bad_client_is_refused_wherever_it_stands(client_id: Any) -> None:
    """Given a client id that breaks the rule, then the refusal names the place."""
    with pytest.raises(InvalidValue, match=r"^client_id: "):
        definition().client_of([client_id, "cats"], {}, None)
    with pytest.raises(InvalidValue, match=r"^billing_client: "):
        definition().client_of([], {"query": "cats"}, client_id)


def test_a_default_of_the_client_argument_pays() -> None:
    """Given a task whose client argument has a default, when the call leaves it out, then the default pays."""

    def internal(query: str, client_id: str = "house") -> None:
        """Do nothing."""

    assert definition(internal).client_of(["cats"], {}, None) == "house"


def test_the_quantity_is_one_or_declared_or_computed() -> None:
    """Given no quantity, a number or a callable, then that much is charged by default; a bad answer is refused."""
    call: tuple[list[Any], dict[str, Any]] = (["acme", "cats"], {"pages": 2})

    assert definition().charged_by_default(*call) == 1
    assert definition(quantity=0).charged_by_default(*call) == 0
    assert definition(quantity=lambda client_id, query, *, pages: 5 * pages).charged_by_default(*call) == 10
    for bad in (-1, 1.5, "2", None, True, CREDITS_MAX + 1):
        with pytest.raises(InvalidValue, match=r"^quantity of search: "):
            definition(quantity=lambda *_, bad=bad, **__: bad).charged_by_default(*call)


def test_the_sku_is_a_name_or_computed_from_the_arguments(app: celery.Celery) -> None:
    """Given a callable, then it says per call what is sold, the same for hold and charge; a bad answer is refused."""
    task = declared(app, sku=lambda client_id, query, *, pages: f"search-{query}", quantity=3, reserve={"extra": 4})

    assert task.definition.sku_of(["acme", "cats"], {"pages": 2}) == "search-cats"
    assert list(task.definition.held_at_most(["acme", "cats"], {}).items()) == [("search-cats", 3), ("extra", 4)]
    assert definition().sku_of(["acme", "cats"], {}) == "search"
    for bad in ("", "Page", None, 5):
        with pytest.raises(InvalidValue, match=r"^sku of search: "):
            definition(sku=lambda *_, bad=bad, **__: bad).held_at_most(["acme", "cats"], {})
    with pytest.raises(InvalidValue, match=r"search.*its SKU depends on the call"):
        task.definition.client_of([], {"query": "cats"}, None)


def test_callables_get_the_same_arguments_however_the_call_passes_them() -> None:
    """Given keywords, positions or defaults, then a quantity is called with every argument of the task, by position."""
    found = definition(quantity=lambda who, what, pages: len(what) * pages)

    assert found.charged_by_default(["acme", "cats"], {}) == 4
    assert found.charged_by_default(["acme"], {"query": "cats", "pages": 2}) == 8
    assert found.charged_by_default([], {"client_id": "acme", "query": "cats"}) == 4


def test_the_reserve_is_the_quantity_a_number_a_mapping_or_computed() -> None:
    """Given each form of `reserve`, then what is held is said per SKU, the task's own first."""
    call: tuple[list[Any], dict[str, Any]] = (["acme", "cats"], {})

    assert definition(quantity=3).held_at_most(*call) == {"search": 3}
    assert definition(quantity=3, reserve=7).held_at_most(*call) == {"search": 7}
    assert list(definition(quantity=3, reserve={"extra": 4}).held_at_most(*call).items()) == [
        ("search", 3),
        ("extra", 4),
    ]
    assert definition(quantity=3, reserve={"search": 9}).held_at_most(*call) == {"search": 9}
    assert definition(reserve=lambda *_, **__: 8).held_at_most(*call) == {"search": 8}
    for bad in (-1, "2", {"extra": -1}, {"Extra": 1}, {f"sku-{number}": 1 for number in range(LINES_MAX)}):
        with pytest.raises(InvalidValue):
            definition(reserve=lambda *_, bad=bad, **__: bad).held_at_most(*call)


@pytest.mark.parametrize("name", ["map", "starmap", "chunks"])
def test_calls_that_run_without_hooks_are_refused_and_name_group(app: celery.Celery, name: str) -> None:
    """Given `map`, `starmap` or `chunks`, which run the body unbilled, then they raise and name `group` (L3)."""
    task = declared(app, sku="search")

    with pytest.raises(Exception, match=rf"task search: {name}\(\).*celery\.group"):
        getattr(task, name)([("acme", "cats")], 10)


def test_a_billable_task_acknowledges_late_whatever_the_app_says(app: celery.Celery) -> None:
    """Given an app that acknowledges early, then its billable tasks still do not lose their work (L3)."""
    app.conf.update(task_acks_late=False, task_reject_on_worker_lost=False)

    task = declared(app, sku="search")

    assert task.acks_late is True
    assert task.reject_on_worker_lost is True
