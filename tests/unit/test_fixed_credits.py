"""`credits=`: what a success costs under its task's SKU, whatever the price book says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import celery
import pytest

import billing
from billing import BillableTask, InsufficientCredits, InvalidValue
from billing.core.clock import to_milliseconds
from billing.core.credits import CREDITS_MAX
from billing.credits.values import StoredHold
from billing.events.usage_event import decode_draft, decode_head, encode_draft
from billing.task.attachment import attachment_of
from billing.task.gate import prepare_delivery
from billing.task.lifecycle import Lifecycle
from billing.task.run import Run
from billing.testing import BillingTwin
from tests.unit.selling import an_app

#: When the one run of the tests of deploys was submitted.
SUBMITTED_AT = to_milliseconds(datetime.now(UTC))


@pytest.fixture
def twin() -> Iterator[BillingTwin]:
    """Bill by a twin that has no price of `report`."""
    twin = BillingTwin()
    twin.price("page", 3)
    twin.client("acme", 1_000)
    with twin.billing():
        yield twin


def declared(app: celery.Celery, run: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Declare a task of one SKU that the price book does not know."""

    def report(client_id: str, pages: int = 0) -> int:
        if pages:
            billing.usage.record(pages, sku="page")
        return pages

    decorate: Any = app.task(shared=False, name="report", base=BillableTask, **{"sku": "report", **options})
    task = decorate(run or report)
    app.finalize()
    return app.tasks[task.name]


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"credits": -1}, "credits", "must be from 0"),
    ({"credits": 1.5}, "credits", "must be a whole number"),
    ({"credits": True}, "credits", "must be a whole number"),
    ({"credits": "7"}, "credits", "must be a whole number"),
    ({"credits": lambda client_id, pages: 7}, "credits", "must be a whole number"),
    ({"credits": CREDITS_MAX + 1}, "credits", "must be from 0"),
    ({"credits": 7, "quantity": 1}, "credits", "must not be set beside quantity"),
    ({"credits": 7, "quantity": lambda client_id, pages: 1}, "credits", "must not be set beside quantity"),
    ({"credits": 7, "reserve": 9}, "reserve", "must map other SKUs"),
    ({"credits": 7, "reserve": {"report": 9}}, "reserve", "must map other SKUs"),
]


@pytest.mark.parametrize(("options", "option", "rule"), WRONG)
def test_a_wrong_declaration_is_refused_when_the_app_finalizes(
    app: celery.Celery, options: dict[str, Any], option: str, rule: str
) -> None:
    """Given credits that break a rule, when the app finalizes, then one line names task, option and rule."""
    with pytest.raises(InvalidValue) as refused:
        declared(app, **options)

    assert refused.value.field == f"task report: {option}"
    assert refused.value.rule.startswith(rule)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("sku", ["report", lambda client_id, pages: "report"], ids=["a name", "computed"])
def test_a_success_costs_its_credits_with_quantity_one_and_no_price(
    app: celery.Celery, twin: BillingTwin, sku: Any
) -> None:
    """Given a SKU without a price, when its task of 7 credits succeeds, then 7 are charged at the book's version."""
    task = declared(app, sku=sku, credits=7)

    task.apply(args=("acme",)).get()

    (event,) = twin.events("acme")
    assert [(line.sku, line.quantity, line.credits) for line in event.lines] == [("report", 1, 7)]
    assert (event.price_version, twin.balance("acme").available, twin.holds("acme")) == (1, 993, [])


def test_zero_credits_are_a_charge_of_nothing(app: celery.Celery, twin: BillingTwin) -> None:
    """Given a task of 0 credits, then its success is an event that costs nothing."""
    declared(app, credits=0).apply(args=("acme",)).get()

    assert [line.credits for event in twin.events("acme") for line in event.lines] == [0]


def test_other_skus_are_recorded_held_and_rated_as_usual(app: celery.Celery, twin: BillingTwin) -> None:
    """Given a most of two pages, when one was used, then the credits and one page are charged."""
    held: list[StoredHold] = []

    def report(client_id: str, pages: int = 0) -> None:
        held.extend(twin.holds("acme"))
        billing.usage.record(pages, sku="page")

    task = declared(app, report, credits=7, reserve={"page": 2})
    quoted = task.quote("acme", 1)
    task.apply(args=("acme", 1)).get()

    assert (quoted.quantity, quoted.credits, quoted.required) == (1, 7, 13)
    assert (held[0].credits, twin.charged("acme")) == (13, 10)


def test_the_own_skus_quantity_cannot_be_recorded(app: celery.Celery, twin: BillingTwin) -> None:
    """Given a run of fixed credits that records its own SKU, then one line refuses that, and nothing is charged."""

    def report(client_id: str) -> None:
        for sku in (None, "report"):
            with pytest.raises(InvalidValue, match=r"quantity: 2: cannot be recorded for SKU 'report'"):
                billing.usage.record(2, sku=sku)
        billing.usage.record(2)

    with pytest.raises(InvalidValue):
        declared(app, report, credits=7).apply(args=("acme",)).get()
    assert (twin.events("acme"), twin.balance("acme").available) == ([], 1_000)


def test_a_client_that_has_less_is_refused(app: celery.Celery, twin: BillingTwin) -> None:
    """Given 6 credits, then a task of 7 does not run (L1)."""
    twin.client("poor", 6)

    with pytest.raises(InsufficientCredits) as refused:
        declared(app, credits=7).apply(args=("poor",)).get()
    assert refused.value.args == ("poor", "report", 7, 6)


def delivered(app: celery.Celery, credits_: int | None, **options: Any) -> tuple[Lifecycle, Run]:
    """Return the one run `r` as a worker sees it whose code declares these credits; not yet held."""
    other = an_app("deployed")
    task = declared(other, credits=credits_, **options)
    cycle = attachment_of(app).lifecycle
    request: Any = SimpleNamespace(
        id="r", root_id="r", headers={"billing_at": SUBMITTED_AT}, retries=0, replaced_task_nesting=0, is_eager=False
    )
    delivery: Any = SimpleNamespace(request=request, definition=task.definition)
    return cycle, prepare_delivery(cycle, delivery, ("acme",), {})


@pytest.mark.parametrize(("first", "then", "charged"), [(7, 9, 7), (9, 7, 9), (7, None, 7), (None, 9, 3)], ids=str)
def test_the_credits_of_the_first_reserve_hold_through_a_deploy(
    app: celery.Celery, twin: BillingTwin, first: int | None, then: int | None, charged: int
) -> None:
    """Given a deploy between two deliveries of a run, then it costs what it did when it was first held."""
    cycle, run = delivered(app, first, sku="page")
    cycle.hold(run)
    cycle.renewal.remove(run)
    cycle, again = delivered(app, then, sku="page")

    cycle.hold(again)

    (hold,) = twin.holds("acme")
    draft = decode_draft(hold.lines)
    assert ([line.credits for line in draft.lines], draft.fixed) == ([charged], first)
    cycle.succeed(again)
    assert twin.charged("acme") == charged


def test_a_deploy_right_between_reserve_and_staging_does_not_change_the_price(
    app: celery.Celery, twin: BillingTwin
) -> None:
    """Given a worker that dies once its reserve took a run over, then the draft is still the first reserve's."""
    cycle, run = delivered(app, 7)
    cycle.hold(run)
    _, again = delivered(app, 9)

    twin.runtime.buckets.reserve(again.hold)

    (hold,) = twin.holds("acme")
    assert [line.credits for line in decode_draft(hold.lines).lines] == [7]
    cycle.renewal.remove(run)


def test_l6_a_hold_that_is_asserted_anew_keeps_the_price_of_the_first_reserve(
    app: celery.Celery, twin: BillingTwin
) -> None:
    """Given a run that was taken over, when its hold is asserted while recovering, then at the first price."""
    cycle, run = delivered(app, 7)
    cycle.hold(run)
    cycle.renewal.remove(run)
    twin.price("page", 5)
    cycle, again = delivered(app, 9)
    cycle.hold(again)

    assert (again.hold.price_version, decode_head(again.hold.head).price_version) == (1, 1)
    asserted = decode_draft(cycle._draft_of(again))
    assert ([line.credits for line in asserted.lines], asserted.fixed) == ([7], 7)
    cycle.renewal.remove(again)


def test_a_draft_without_fixed_credits_is_written_as_before() -> None:
    """Given a run that the book prices, then its draft has no word of fixed credits: most holds have none to store."""
    text = b'{"priced_at":1,"lines":[]}'

    assert decode_draft(text).fixed is None
    assert encode_draft(decode_draft(text)) == text
