"""What a call says goes with its message by every way to publish one, and no link of a canvas costs its parent (L3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import celery
import pytest
from celery.app.trace import build_tracer

from billing import BillableTask, InvalidValue
from billing.testing import BillingTwin
from tests.unit.submitting.declaring import sold

LINKS: list[Callable[[Any], Any]] = [
    lambda task: celery.chain(task.s(), task.si("acme")),
    lambda task: celery.group([celery.chain(task.s(), task.si("acme")), task.si("acme")]),
    lambda task: celery.chord([celery.chain(task.s(), task.si("acme")), task.si("acme")], task.si("acme")),
    lambda task: task.si("acme").set(billing_quantiy=4),
    lambda task: task.si("acme").set(billing_client="acme", headers={"billing_client": "brook"}),
]


@pytest.mark.parametrize("link", LINKS)
def test_l3_a_link_that_cannot_be_billed_costs_its_parent_no_charge(
    app: celery.Celery, twin: BillingTwin, link: Callable[[Any], Any]
) -> None:
    """Given a callback that begins with a call that nobody could bill, then its parent succeeds, and is charged."""
    task = sold(app)
    request = {"id": "one", "root_id": "one", "is_eager": False, "callbacks": [link(task)]}

    ended: Any = build_tracer(task.name, task, app=app)("one", ["acme"], {}, request)

    assert ended.info is None
    assert [sum(line.credits for line in event.lines) for event in twin.events()] == [5]


def test_what_is_wrong_with_a_link_is_refused_before_it_runs(
    app: celery.Celery, twin: BillingTwin, published: list[dict[str, Any]]
) -> None:
    """Given a link with a misspelt keyword, then its message says what is wrong, and no worker runs it."""
    task = sold(app)

    task.s("acme").set(billing_quantiy=4).apply_async(parent_id="one", root_id="one")
    with pytest.raises(InvalidValue, match="did you mean billing_quantity"):
        task.apply(("acme",), headers=published[0]).get()

    assert (len(published), twin.events(), twin.holds("acme")) == (1, [], [])


def test_what_a_call_says_survives_retries_and_ends_with_the_run(app: celery.Celery, twin: BillingTwin) -> None:
    """Given a call of 4 pages that retries and is then replaced, then the retry has its headers, the other call not."""
    seen: list[Any] = []

    @app.task(shared=False, name="other", bind=True, base=BillableTask, sku="page")
    def other(self: Any, client_id: str) -> None:
        seen.append((self.request.headers or {}).get("billing_quantity"))

    @app.task(shared=False, name="first", bind=True, base=BillableTask, sku="page")
    def first(self: Any, client_id: str) -> None:
        seen.append(self.request.headers["billing_quantity"])
        if not self.request.retries:
            raise self.retry(countdown=0)
        self.replace(other.s(client_id))

    first.apply(("acme",), billing_quantity=4).get()

    assert seen == [4, 4, None]
    # An eager `replace()` returns into the body that was replaced, which then succeeds as well.
    assert sorted(sum(line.credits for line in event.lines) for event in twin.events()) == [5, 20]


def test_what_is_published_by_name_or_past_our_apply_async_carries_it_too(
    app: celery.Celery, twin: BillingTwin, published: list[dict[str, Any]]
) -> None:
    """Given `send_task`, and an override of `apply_async` without super(), then keywords and headers are carried."""

    class Own(BillableTask):
        def apply_async(self, *args: Any, **options: Any) -> Any:
            """Submit as a plain task does."""
            return celery.Task.apply_async(self, *args, **options)

    decorate: Any = app.task(shared=False, name="own", base=Own, sku="page")

    def body(client_id: str) -> None:
        """Do nothing."""

    task = decorate(body)
    task.apply_async(("acme",), billing_quantity=4)
    task.apply_async(("acme",), headers={"billing_quantity": 4})
    app.send_task("elsewhere", ("acme",), billing_quantity=4)
    by_name: Any = app.signature("elsewhere", ("acme",))
    by_name.set(billing_quantity=4).delay()

    assert [headers["billing_quantity"] for headers in published] == [4] * 4


def test_a_stamp_of_the_same_name_says_the_same(
    app: celery.Celery, twin: BillingTwin, published: list[dict[str, Any]]
) -> None:
    """Given a canvas that is stamped with `billing_client`, then its tasks have the header, and the stamp."""
    task = sold(app)
    signature = task.s()
    signature.stamp(billing_client="acme")

    signature.apply_async()

    assert [headers["billing_client"] for headers in published] == ["acme"]
