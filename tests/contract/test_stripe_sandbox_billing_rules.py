"""Rules of prices, subscriptions, invoices, adjustments and v2 that can be asked of Stripe without waiting for months.

The same assertions run against a Stripe sandbox when STRIPE_SANDBOX_KEY holds a test key (a live one is refused).
"""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import stripe

from billing.sinks.stripe.sandbox import times
from tests.contract.targets import DAY, Target, minute_ago


def price_of(target: Target, **more: Any) -> stripe.Price:
    """Make a monthly price of the target's meter."""
    product = target.client.v1.products.create({"name": "Test"}).id
    params: Any = {
        "product": product,
        "currency": "eur",
        "unit_amount_decimal": "0.125",
        "recurring": {"interval": "month", "usage_type": "metered", "meter": target.meter.id},
        **more,
    }
    return target.client.v1.prices.create(params)


def subscribe(target: Target, **more: Any) -> stripe.Subscription:
    """Subscribe the target's customer to such a price."""
    params: Any = {"customer": target.customer, "items": [{"price": price_of(target).id}], **more}
    return target.client.v1.subscriptions.create(params)


def refused(call: Any, *arguments: Any) -> stripe.InvalidRequestError:
    """Make a call that must be refused; return the SDK's exception."""
    with pytest.raises(stripe.InvalidRequestError) as caught:
        call(*arguments)
    return caught.value


def test_a_metered_price_has_its_meter_and_its_exact_amount(target: Target) -> None:
    """Fractions of the smallest unit are texts; `unit_amount` is null then."""
    price = price_of(target)
    assert price.recurring is not None
    assert (price.type, price.recurring.usage_type, price.recurring.meter) == ("recurring", "metered", target.meter.id)
    assert (price.unit_amount, str(price.unit_amount_decimal)) == (None, "0.125")


def test_a_price_is_found_by_its_lookup_key(target: Target) -> None:
    """A second price is refused the same one."""
    key = uuid.uuid4().hex
    price = price_of(target, lookup_key=key)
    assert [one.id for one in target.client.v1.prices.list({"lookup_keys": [key]}).data] == [price.id]
    with pytest.raises(stripe.InvalidRequestError):
        price_of(target, lookup_key=key)


def test_a_metered_price_of_no_meter_is_refused(target: Target) -> None:
    """Usage records are gone: what is metered has a meter."""
    recurring = {"interval": "month", "usage_type": "metered"}
    with pytest.raises(stripe.InvalidRequestError):
        price_of(target, recurring=recurring)
    with pytest.raises(stripe.InvalidRequestError):
        price_of(target, recurring={**recurring, "meter": "mtr_test_nothing"})


def test_a_subscription_has_its_periods_on_its_items(target: Target) -> None:
    """A month from its start."""
    made = subscribe(target)
    (item,) = made["items"].data
    start = datetime.fromtimestamp(item.current_period_start, UTC)
    end = datetime.fromtimestamp(item.current_period_end, UTC)
    assert item.current_period_start == made.billing_cycle_anchor == made.start_date
    assert (end.year * 12 + end.month) - (start.year * 12 + start.month) == 1
    assert (made.status, made.customer, "current_period_end" in made) == ("active", target.customer, False)


def test_a_subscription_s_first_period_ends_at_its_anchor(target: Target) -> None:
    """And one in the past is refused."""
    anchor = int(time.time()) + 10 * DAY
    made = subscribe(target, billing_cycle_anchor=anchor)
    assert made["items"].data[0].current_period_end == made.billing_cycle_anchor == anchor
    with pytest.raises(stripe.InvalidRequestError):
        subscribe(target, billing_cycle_anchor=anchor - 20 * DAY)


def test_a_subscription_ends_at_its_period_s_end_or_at_once(target: Target) -> None:
    """The first can be taken back; the second cannot, and is found by its status."""
    client = target.client
    made = subscribe(target)
    end = made["items"].data[0].current_period_end
    ending = client.v1.subscriptions.update(made.id, {"cancel_at_period_end": True})
    assert (ending.status, ending.cancel_at) == ("active", end)
    assert client.v1.subscriptions.update(made.id, {"cancel_at_period_end": False}).cancel_at is None
    assert client.v1.subscriptions.cancel(made.id).status == "canceled"
    assert client.v1.subscriptions.list({"customer": target.customer}).data == []
    listed = client.v1.subscriptions.list({"customer": target.customer, "status": "canceled"}).data
    assert [one.id for one in listed] == [made.id]
    refused(client.v1.subscriptions.update, made.id, {"cancel_at_period_end": True})


def test_a_metered_item_takes_no_quantity(target: Target) -> None:
    """What is metered is not ordered."""
    with pytest.raises(stripe.InvalidRequestError):
        subscribe(target, items=[{"price": price_of(target).id, "quantity": 5}])


def test_a_subscription_s_first_invoice_is_of_0_and_final(target: Target) -> None:
    """Usage is billed when its period ends."""
    made = subscribe(target)
    (invoice,) = target.client.v1.invoices.list({"subscription": made.id}).data
    assert (invoice.billing_reason, invoice.status, invoice.total) == ("subscription_create", "paid", 0)
    assert invoice.status_transitions.finalized_at is not None


def test_an_invoice_item_waits_for_the_next_invoice(target: Target) -> None:
    """With its quantity, its period and its metadata."""
    made = subscribe(target)
    start = int(time.time()) - DAY
    item = target.client.v1.invoice_items.create(
        {
            "customer": target.customer,
            "subscription": made.id,
            "currency": "eur",
            "quantity": 41,
            "unit_amount_decimal": Decimal("0.5"),
            "period": {"start": start, "end": start + 60},
            "metadata": {"a": "b"},
        }
    )
    assert (item.quantity, item.amount, item.invoice) == (41, 21, None)
    assert (item.period.start, item.period.end) == (start, start + 60)
    listed = target.client.v1.invoice_items.list({"customer": target.customer, "pending": True}).data
    assert [one.id for one in listed] == [item.id]


def test_an_event_can_be_canceled_by_its_identifier(target: Target) -> None:
    """One that is not there cannot."""
    identifier = uuid.uuid4().hex
    target.send("5", identifier=identifier, timestamp=minute_ago())

    def cancel(name: str) -> Any:
        params: Any = {"type": "cancel", "event_name": target.event_name, "cancel": {"identifier": name}}
        return target.client.v1.billing.meter_event_adjustments.create(params)

    made = cancel(identifier)
    assert made.status in {"pending", "complete"}
    assert (made.cancel.identifier, made.event_name) == (identifier, target.event_name)
    refused(cancel, uuid.uuid4().hex)


def test_an_event_of_v2_says_with_a_code_why_it_is_refused(target: Target) -> None:
    """The duplicate above all: v1 has a sentence for it, and no code."""
    identifier = uuid.uuid4().hex
    payload = {"value": "5", "stripe_customer_id": target.customer}

    def send(**more: Any) -> Any:
        params: Any = {"event_name": target.event_name, "payload": payload, "identifier": identifier, **more}
        return target.client.v2.billing.meter_events.create(params)

    at = times.written(minute_ago())
    assert send(timestamp=at).identifier == identifier
    assert refused(lambda: send(timestamp=at)).code == "duplicate_meter_event"
    other = {"identifier": uuid.uuid4().hex}
    assert refused(lambda: send(**other, payload={**payload, "value": "-5"})).code == "payload_invalid_value"
    assert refused(lambda: send(**other, event_name=f"no_{uuid.uuid4().hex}")).code == "no_meter"


def test_the_events_of_a_meter_can_be_listed(target: Target) -> None:
    """Of a meter that had no errors there are none of errors."""
    listed = target.client.v2.core.events.list(
        {"object_id": target.meter.id, "types": ["v1.billing.meter.error_report_triggered"], "limit": 10}
    )
    assert listed.data == []
    assert listed.next_page_url is None
