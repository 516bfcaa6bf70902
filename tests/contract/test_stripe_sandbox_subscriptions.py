"""Products, prices and subscriptions of the stand-in, through the real SDK: what is taken, what periods are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import stripe

from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.contract.billed_account import at, period, subscribe
from tests.contract.metering import DAY, HOUR, metered_price

APRIL = int(datetime(2026, 4, 10, 9, 30, tzinfo=UTC).timestamp())


@pytest.fixture
def price(stripe_client: stripe.StripeClient, meter: str) -> str:
    """Make a metered price of the meter `credits`."""
    return metered_price(stripe_client, meter)


def test_customers_are_listed_newest_first_and_by_email(stripe_client: stripe.StripeClient) -> None:
    """A deleted one is not listed; pages hold what was asked for."""
    make = stripe_client.v1.customers.create
    made = [make({"email": f"{name}@example.org"}).id for name in ("a", "b", "a", "c")]
    stripe_client.v1.customers.delete(made[3])

    listed = stripe_client.v1.customers.list({"limit": 2})
    assert [one.id for one in listed.auto_paging_iter()] == [made[2], made[1], made[0]]
    by_email = stripe_client.v1.customers.list({"email": "a@example.org"})
    assert [one.id for one in by_email.data] == [made[2], made[0]]


def test_a_customers_metadata_is_merged(stripe_client: stripe.StripeClient) -> None:
    """As documented: an empty text unsets a key, and what is not named stays."""
    made = stripe_client.v1.customers.create({"name": "acme", "metadata": {"a": "1", "b": "2"}})
    changed = stripe_client.v1.customers.update(made.id, {"metadata": {"b": "", "c": "3"}})
    assert changed.metadata is not None
    assert (changed.name, changed.metadata.to_dict()) == ("acme", {"a": "1", "c": "3"})
    assert stripe_client.v1.customers.retrieve(made.id).to_dict() == changed.to_dict()


def test_a_metered_price_names_a_meter_that_is_there(stripe_client: stripe.StripeClient, meter: str) -> None:
    """And only a metered one names one; exactly one amount; a product that is there."""
    product = stripe_client.v1.products.create({"name": "credits"}).id
    metered = {"interval": "month", "usage_type": "metered", "meter": meter}
    good: dict[str, Any] = {
        "product": product,
        "currency": "eur",
        "recurring": metered,
        "unit_amount_decimal": "0.125",
    }
    made = stripe_client.v1.prices.create(good)  # type: ignore[arg-type]
    assert made.recurring is not None
    assert (made.recurring.meter, str(made.unit_amount_decimal), made.unit_amount) == (meter, "0.125", None)

    for change, param in (
        ({"recurring": {**metered, "meter": "mtr_nobody"}}, "recurring[meter]"),
        ({"recurring": {"interval": "month", "usage_type": "metered"}}, "recurring[meter]"),
        ({"recurring": {"interval": "month", "meter": meter}}, "recurring[meter]"),
        ({"unit_amount": 5}, "unit_amount"),
        ({"product": "prod_nobody"}, "product"),
        ({"unit_amount_decimal": "1e3"}, "unit_amount_decimal"),
    ):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            stripe_client.v1.prices.create({**good, **change})  # type: ignore[typeddict-item]
        assert caught.value.param == param


def test_a_lookup_key_finds_a_price_and_moves_when_asked(stripe_client: stripe.StripeClient, meter: str) -> None:
    """Two prices never have the same."""
    first = metered_price(stripe_client, meter, lookup_key="credits")
    with pytest.raises(stripe.InvalidRequestError, match="already uses that lookup key"):
        metered_price(stripe_client, meter, lookup_key="credits")
    second = metered_price(stripe_client, meter, lookup_key="credits", transfer_lookup_key=True)
    found = stripe_client.v1.prices.list({"lookup_keys": ["credits", "other"]}).data
    assert [one.id for one in found] == [second]
    assert stripe_client.v1.prices.retrieve(first).lookup_key is None
    in_use = stripe_client.v1.prices.list({"recurring": {"meter": meter}, "active": True}).data
    assert [one.id for one in in_use] == [second, first]


def test_a_period_is_a_month_from_the_anchor(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, customer: str, price: str
) -> None:
    """Without an anchor it starts when the subscription does; both are on the item alone."""
    stripe_sandbox.set_time(APRIL)
    made = subscribe(stripe_client, customer, price)
    assert period(made) == (APRIL, at(2026, 5, 10, 9, 30))
    assert made.billing_cycle_anchor == APRIL
    assert "current_period_end" not in made


def test_the_first_period_ends_at_the_anchor(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, customer: str, price: str
) -> None:
    """At most one interval ahead, and never in the past."""
    stripe_sandbox.set_time(APRIL)
    may = at(2026, 5, 1)
    assert period(subscribe(stripe_client, customer, price, billing_cycle_anchor=may)) == (APRIL, may)
    for wrong in (APRIL - 1, at(2026, 5, 10, 9, 31)):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            subscribe(stripe_client, customer, price, billing_cycle_anchor=wrong)
        assert caught.value.param == "billing_cycle_anchor"


def test_subscriptions_are_listed_by_customer_and_status(
    stripe_client: stripe.StripeClient, customer: str, price: str
) -> None:
    """Without a status those that are not canceled."""
    other = stripe_client.v1.customers.create({}).id
    first, second = subscribe(stripe_client, customer, price).id, subscribe(stripe_client, customer, price).id
    subscribe(stripe_client, other, price)
    stripe_client.v1.subscriptions.cancel(first)

    def listed(**more: Any) -> list[str]:
        params: Any = {"customer": customer, **more}
        return [one.id for one in stripe_client.v1.subscriptions.list(params).data]

    assert listed() == [second]
    assert listed(status="canceled") == [first]
    assert listed(status="all") == [second, first]
    assert listed(price="price_other") == []


def test_a_canceled_subscription_has_ended_and_cannot_be_changed(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, customer: str, price: str
) -> None:
    """It can be read."""
    stripe_sandbox.set_time(APRIL)
    made = subscribe(stripe_client, customer, price)
    stripe_sandbox.advance(HOUR)
    ended = stripe_client.v1.subscriptions.cancel(made.id)
    assert (ended.status, ended.ended_at, ended.canceled_at) == ("canceled", APRIL + HOUR, APRIL + HOUR)
    assert stripe_client.v1.subscriptions.retrieve(made.id).status == "canceled"
    changes: list[Callable[[], Any]] = [
        lambda: stripe_client.v1.subscriptions.cancel(made.id),
        lambda: stripe_client.v1.subscriptions.update(made.id, {"cancel_at_period_end": True}),
    ]
    for change in changes:
        with pytest.raises(stripe.InvalidRequestError) as caught:
            change()
        assert caught.value.http_status == 404


def test_an_item_changes_its_price(stripe_client: stripe.StripeClient, meter: str, customer: str, price: str) -> None:
    """The item and its period stay; other items may come and go, but one stays."""
    other = metered_price(stripe_client, meter, amount="0.5")
    made = subscribe(stripe_client, customer, price)
    item = made["items"].data[0].id
    changed = stripe_client.v1.subscriptions.update(made.id, {"items": [{"id": item, "price": other}]})
    (now,) = changed["items"].data
    assert (now.id, now.price.id, period(changed)) == (item, other, period(made))

    for wrong in ({"deleted": True}, {"id": "si_nobody", "price": other}):
        with pytest.raises(stripe.InvalidRequestError, match="No such subscription_item"):
            stripe_client.v1.subscriptions.update(made.id, {"items": [wrong]})  # type: ignore[arg-type]
    both = stripe_client.v1.subscriptions.update(made.id, {"items": [{"price": price}]})
    assert [one.price.id for one in both["items"].data] == [other, price]
    one = stripe_client.v1.subscriptions.update(made.id, {"items": [{"id": item, "deleted": True}]})
    assert [left.price.id for left in one["items"].data] == [price]
    with pytest.raises(stripe.InvalidRequestError):
        stripe_client.v1.subscriptions.update(made.id, {"items": [{"id": one["items"].data[0].id, "deleted": True}]})


@pytest.mark.parametrize(
    "wrong",
    [
        {"customer": "cus_nobody"},
        {"items": []},
        {"items": [{"price": "price_nobody"}]},
        {"billing_cycle_anchor": "soon"},
        {"trial_end": DAY},
    ],
)
def test_a_subscription_that_cannot_be_is_refused(
    stripe_client: stripe.StripeClient, customer: str, price: str, wrong: dict[str, Any]
) -> None:
    """Nothing is ignored, and nothing is guessed."""
    params: Any = {"customer": customer, "items": [{"price": price}], **wrong}
    with pytest.raises(stripe.InvalidRequestError):
        stripe_client.v1.subscriptions.create(params)
    assert stripe_client.v1.subscriptions.list({"status": "all"}).data == []


def test_a_backdated_subscription_bills_from_its_start(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, customer: str, price: str
) -> None:
    """As documented, the start date lies in the past; here by less than one period, and never in the future."""
    stripe_sandbox.set_time(APRIL)
    made = subscribe(stripe_client, customer, price, backdate_start_date=APRIL - 5 * DAY)
    assert (made.created, made.start_date, made.billing_cycle_anchor) == (APRIL, APRIL - 5 * DAY, APRIL - 5 * DAY)
    assert period(made) == (APRIL - 5 * DAY, at(2026, 5, 5, 9, 30))
    for wrong in (APRIL + 1, APRIL - 31 * DAY):
        with pytest.raises(stripe.InvalidRequestError, match="backdates"):
            subscribe(stripe_client, customer, price, backdate_start_date=wrong)
