"""What the stand-in's billing takes and returns is what the SDK's generated types describe.

Objects have exactly their keys, each of its type. Of the parameters the stand-in takes those that billing needs: no
call takes one that Stripe does not have, and none does without one that Stripe demands.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest
import stripe
from stripe import Customer, Invoice, InvoiceItem, InvoiceLineItem, Price, Product, Subscription
from stripe.billing import MeterEventAdjustment
from stripe.events._v1_billing_meter_error_report_triggered_event import V1BillingMeterErrorReportTriggeredEvent
from stripe.events._v1_billing_meter_no_meter_found_event import V1BillingMeterNoMeterFoundEvent
from stripe.v2.billing import MeterEvent
from stripe.v2.billing import MeterEventAdjustment as V2MeterEventAdjustment

from billing.sinks.stripe.sandbox import calls
from billing.sinks.stripe.sandbox.control import SandboxControl
from billing.sinks.stripe.sandbox.params import Param, Spec
from billing.sinks.stripe.sandbox.resources import (
    adjustments,
    core_events,
    customers,
    invoice_items,
    invoices,
    prices,
    products,
    subscriptions,
    v2_meter_events,
)
from tests.contract.billed_account import JUNE, MAY, Account
from tests.contract.metering import HOUR, Send
from tests.contract.sdk_types import accepted, object_mismatches, required

#: The SDK's parameters of each call; those that are not in the types are in the third column.
CALLS: dict[Any, tuple[str, str, set[str]]] = {
    customers.list_all: ("_customer_list_params", "CustomerListParams", set()),
    customers.update: ("_customer_update_params", "CustomerUpdateParams", set()),
    products.create: ("_product_create_params", "ProductCreateParams", set()),
    products.update: ("_product_update_params", "ProductUpdateParams", set()),
    products.list_all: ("_product_list_params", "ProductListParams", set()),
    prices.create: ("_price_create_params", "PriceCreateParams", set()),
    prices.update: ("_price_update_params", "PriceUpdateParams", set()),
    prices.list_all: ("_price_list_params", "PriceListParams", set()),
    subscriptions.create: ("_subscription_create_params", "SubscriptionCreateParams", set()),
    subscriptions.update: ("_subscription_update_params", "SubscriptionUpdateParams", set()),
    subscriptions.list_all: ("_subscription_list_params", "SubscriptionListParams", set()),
    subscriptions.cancel: ("_subscription_cancel_params", "SubscriptionCancelParams", set()),
    invoices.list_all: ("_invoice_list_params", "InvoiceListParams", set()),
    invoice_items.create: ("_invoice_item_create_params", "InvoiceItemCreateParams", set()),
    invoice_items.list_all: ("_invoice_item_list_params", "InvoiceItemListParams", set()),
    adjustments.create: ("billing._meter_event_adjustment_create_params", "MeterEventAdjustmentCreateParams", set()),
    adjustments.create_v2: (
        "v2.billing._meter_event_adjustment_create_params",
        "MeterEventAdjustmentCreateParams",
        set(),
    ),
    v2_meter_events.create: ("v2.billing._meter_event_create_params", "MeterEventCreateParams", set()),
    core_events.list_all: ("v2.core._event_list_params", "EventListParams", {"page"}),  # of its own next_page_url
}
#: Objects inside of parameters, by the suffix of the SDK's name.
NESTED: dict[tuple[Any, str], str] = {
    (prices.create, "recurring"): "Recurring",
    (prices.list_all, "recurring"): "Recurring",
    (subscriptions.create, "items"): "Item",
    (subscriptions.create, "billing_mode"): "BillingMode",
    (subscriptions.update, "items"): "Item",
    (subscriptions.cancel, "cancellation_details"): "CancellationDetails",
    (invoice_items.create, "period"): "Period",
    (invoice_items.create, "pricing"): "Pricing",
    (adjustments.create, "cancel"): "Cancel",
    (adjustments.create_v2, "cancel"): "Cancel",
    (core_events.list_all, "created"): "Created",
}


def spec_of(call: Any) -> Spec:
    """Return what a call takes."""
    return next(route.takes for route in calls.ROUTES if route.run is call)


def described(call: Any, suffix: str = "") -> Any:
    """Return the SDK's type of a call's parameters."""
    module, name, _ = CALLS[call]
    return getattr(importlib.import_module(f"stripe.params.{module}"), name + suffix)


def body_of(answer: Any) -> Any:
    """Return the JSON that came over the socket."""
    return json.loads(answer.last_response.body)


def needed(spec: Spec) -> set[str]:
    """Return the parameters without which a call is refused."""
    return {name for name, param in spec.items() if param.required}


@pytest.mark.parametrize("call", list(CALLS), ids=lambda call: f"{call.__module__.rsplit('.', 1)[-1]}.{call.__name__}")
def test_a_call_takes_only_parameters_of_the_sdk(call: Any) -> None:
    """And demands all that Stripe demands."""
    assert set(spec_of(call)) - CALLS[call][2] <= accepted(described(call))
    assert required(described(call)) <= needed(spec_of(call))


@pytest.mark.parametrize(("call", "name"), list(NESTED), ids=str)
def test_an_object_in_a_parameter_has_only_fields_of_the_sdk(call: Any, name: str) -> None:
    """The same, one level below."""
    param: Param = spec_of(call)[name]
    kind = described(call, NESTED[call, name])
    assert set(param.fields) <= accepted(kind)
    assert required(kind) <= needed(param.fields)


def test_every_object_in_a_parameter_is_compared_with_the_sdk() -> None:
    """A new one cannot be forgotten above."""
    nested = {(call, name) for call in CALLS for name, param in spec_of(call).items() if param.fields}
    assert nested == set(NESTED)


def test_the_objects_of_billing_have_exactly_the_keys_and_types_of_the_sdk(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, send: Send, meter: str, customer: str
) -> None:
    """Product, price, subscription with its items, invoice with its lines, invoice item."""
    account = Account(stripe_sandbox, stripe_client, send, meter, customer)
    item = stripe_client.v1.invoice_items.create(
        {"customer": customer, "currency": "eur", "amount": 5, "subscription": account.subscription.id}
    )
    one_time = stripe_client.v1.prices.create(
        {"product": stripe_client.v1.products.create({"name": "x"}).id, "currency": "eur", "unit_amount": 5}
    )
    account.control.set_time(JUNE)
    draft = account.invoices()[0]
    account.control.set_time(JUNE + HOUR)
    final = stripe_client.v1.invoices.retrieve(draft.id)
    price = stripe_client.v1.prices.retrieve(account.price)
    lines = body_of(stripe_client.v1.invoices.line_items.list(final.id))["data"]
    objects: list[tuple[Any, type]] = [
        (body_of(stripe_client.v1.products.retrieve(str(price.product))), Product),
        (body_of(price), Price),
        (body_of(one_time), Price),
        (body_of(account.subscription), Subscription),
        (body_of(stripe_client.v1.subscriptions.cancel(account.subscription.id)), Subscription),
        (body_of(item), InvoiceItem),
        (body_of(stripe_client.v1.invoice_items.retrieve(item.id)), InvoiceItem),
        (body_of(final), Invoice),
        *((line, InvoiceLineItem) for line in lines),
        *((invoice, Invoice) for invoice in body_of(stripe_client.v1.invoices.list({}))["data"]),
    ]
    assert len(lines) == 2
    for seen, kind in objects:
        assert object_mismatches(seen, kind, kind.__name__) == []


def test_listed_customers_have_only_what_the_sdk_s_customer_has(
    stripe_client: stripe.StripeClient, customer: str
) -> None:
    """The same form as the one that is read alone."""
    (listed,) = body_of(stripe_client.v1.customers.list({}))["data"]
    assert listed == body_of(stripe_client.v1.customers.retrieve(customer))
    assert listed.keys() <= Customer.__annotations__.keys()


def test_adjustments_and_the_events_of_v2_have_exactly_the_keys_and_types_of_the_sdk(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, send: Send, customer: str
) -> None:
    """And the SDK makes of a thin event the class of its type."""
    stripe_sandbox.set_time(MAY)
    send("i1")
    params: Any = {"type": "cancel", "event_name": "credits", "cancel": {"identifier": "i1"}}
    adjustment = stripe_client.v1.billing.meter_event_adjustments.create(params)
    assert object_mismatches(body_of(adjustment), MeterEventAdjustment, "adjustment") == []

    payload = {"value": "5", "stripe_customer_id": customer}
    event = stripe_client.v2.billing.meter_events.create({"event_name": "credits", "payload": payload})
    assert object_mismatches(body_of(event), MeterEvent, "event") == []
    assert isinstance(event, MeterEvent)

    again = stripe_client.v2.billing.meter_event_adjustments.create(
        {"type": "cancel", "event_name": "credits", "cancel": {"identifier": event.identifier}}
    )
    assert object_mismatches(body_of(again), V2MeterEventAdjustment, "adjustment") == []

    stripe_sandbox.knobs(no_meter="drop")
    send("i2", customer="cus_nobody")
    send("i3", event_name="nothing")
    stripe_sandbox.advance(60)
    kinds = {
        "v1.billing.meter.error_report_triggered": V1BillingMeterErrorReportTriggeredEvent,
        "v1.billing.meter.no_meter_found": V1BillingMeterNoMeterFoundEvent,
    }
    listed = stripe_client.v2.core.events.list({})
    assert {one.type for one in listed.data} == set(kinds)
    for one in listed.data:
        read = stripe_client.v2.core.events.retrieve(one.id)
        assert type(read) is kinds[one.type]
        assert object_mismatches(body_of(read), kinds[one.type], "event") == []
