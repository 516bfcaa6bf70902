"""What one call says that it costs: it is held and charged (L1), or refused at both ends in one line. On a twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import celery
import pytest

from billing import InsufficientCredits, InvalidValue
from billing.testing import BillingTwin
from tests.unit.submitting.declaring import sold


def test_a_call_says_its_own_quantity_and_most(app: celery.Celery, twin: BillingTwin) -> None:
    """Given a task of 2 pages, when a call says 4, then 4 are held and charged; a most of its own is held instead."""
    task = sold(app, quantity=2, reserve={"extra": 10})
    twin.client("poor", 19)

    task.apply(("acme",), billing_quantity=4).get()
    assert twin.charged("acme") == 20
    task.apply(("acme",), billing_quantity=0).get()
    task.s("acme").set(billing_quantity=1).apply().get()
    assert twin.charged("acme") == 25
    task.apply(("acme",), {"used": 3}, billing_reserve=8).get()
    assert twin.charged("acme") == 40
    for options, required in (
        ({"billing_quantity": 4}, 30),
        ({"billing_reserve": 4}, 20),
        ({"billing_quantity": 1, "billing_reserve": {"page": 3, "extra": 7}}, 22),
    ):
        with pytest.raises(InsufficientCredits) as refused:
            task.apply(("poor",), **options).get()
        assert (refused.value.required, refused.value.available) == (required, 19)
    assert twin.holds("acme") == []


@pytest.mark.parametrize("reserve", [3, {"page": 3}, lambda client_id, pages, *, used: 3, None])
def test_l1_the_quantity_of_a_call_is_held_whatever_the_task_reserves(
    app: celery.Celery, twin: BillingTwin, reserve: Any
) -> None:
    """Given a task that holds 3, when a call says that it costs 4, then 4 are held."""
    task = sold(app, quantity=2, reserve=reserve)
    twin.client("poor", 19)

    with pytest.raises(InsufficientCredits) as refused:
        task.apply(("poor",), billing_quantity=4).get()
    assert refused.value.required == 20


@pytest.mark.parametrize("reserve", [0, 1, {"page": 0}])
def test_l1_a_call_that_reserves_less_than_it_is_charged_by_default_holds_that(
    app: celery.Celery, twin: BillingTwin, reserve: Any
) -> None:
    """Given a client with 9 credits, when a message says that 2 pages of 5 reserve less, then 10 are asked for."""
    task = sold(app, quantity=2)
    twin.client("poor", 9)

    with pytest.raises(InsufficientCredits) as refused:
        task.apply(("poor",), headers={"billing_reserve": reserve}).get()
    assert (refused.value.required, twin.events()) == (10, [])


BAD_VALUES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"billing_quantity": -1}, {}, "billing_quantity: -1: must be from 0"),
    ({"billing_quantity": "4"}, {}, "billing_quantity: '4': must be a whole number"),
    ({"billing_quantity": True}, {}, "billing_quantity: True: must be a whole number"),
    ({"billing_quantity": 1.0}, {}, "billing_quantity: 1.0: must be a whole number"),
    ({"billing_reserve": -1}, {}, "billing_reserve: -1: must be from 0"),
    ({"billing_reserve": {"extra": 2.5}}, {}, "billing_reserve['extra']: 2.5: must be a whole number"),
    ({"billing_reserve": {"Extra": 2}}, {}, "billing_reserve: 'Extra': must"),
    ({"billing_reserve": {f"s{n}": 1 for n in range(32)}}, {}, "billing_reserve: 32: must name at most 32 SKUs"),
    ({"billing_quantity": 4}, {"credits": 7}, "billing_quantity: 4: must not be given: task sold fixes its credits"),
    ({"billing_reserve": 4}, {"credits": 7}, "billing_reserve: 4: must map other SKUs"),
    ({"billing_reserve": {"page": 4}}, {"credits": 7}, "billing_reserve: {'page': 4}: must map other SKUs"),
]


@pytest.mark.parametrize(("said", "declared", "refusal"), BAD_VALUES)
def test_a_value_that_is_none_is_refused_when_submitted_and_before_it_runs(
    app: celery.Celery,
    twin: BillingTwin,
    published: list[dict[str, Any]],
    said: dict[str, Any],
    declared: dict[str, Any],
    refusal: str,
) -> None:
    """Given a bad value by keyword or by header, then one line names field, value and rule, at both ends."""
    task = sold(app, **declared)

    submits: list[Callable[[], Any]] = [
        lambda: task.apply_async(("acme",), **said),
        lambda: task.apply_async(("acme",), headers=said),
        lambda: task.s("acme").set(**said).delay(),
        lambda: task.apply(("acme",), headers=said).get(),
    ]
    for submit in submits:
        with pytest.raises(InvalidValue) as refused:
            submit()
        assert str(refused.value).startswith(refusal)
        assert "\n" not in str(refused.value)
    assert (published, twin.events(), twin.holds("acme")) == ([], [], [])


def test_an_unknown_keyword_is_refused_by_name(
    app: celery.Celery, twin: BillingTwin, published: list[dict[str, Any]]
) -> None:
    """Given a misspelt keyword, then it is named, with the one that was meant."""
    task = sold(app)

    with pytest.raises(InvalidValue, match=r"task sold: 'billing_quantiy': .* did you mean billing_quantity\?"):
        task.apply_async(("acme",), billing_quantiy=4)
    with pytest.raises(InvalidValue, match="'billing_discount'"):
        task.s("acme").set(billing_discount=4).delay()
    assert published == []
