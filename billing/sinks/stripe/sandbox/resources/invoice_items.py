"""Invoice items: amounts that wait for the customer's next invoice.

Source: the API reference. `amount`, or a quantity of units at a decimal amount; `invoice` puts it on a draft at once.
"""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any, Final

from billing.sinks.stripe.sandbox import errors
from billing.sinks.stripe.sandbox.billed_records import Price, Subscription
from billing.sinks.stripe.sandbox.errors import Refusal
from billing.sinks.stripe.sandbox.invoicing.lines import amount_of, item_pricing
from billing.sinks.stripe.sandbox.invoicing.records import Invoice, InvoiceItem
from billing.sinks.stripe.sandbox.pages import page
from billing.sinks.stripe.sandbox.params import EXPAND, PAGE, Param, Spec, within
from billing.sinks.stripe.sandbox.records import new_id
from billing.sinks.stripe.sandbox.resources import customers, prices
from billing.sinks.stripe.sandbox.routing import Call, route

CREATE: Final[Spec] = {
    **EXPAND,
    "amount": Param(kind="integer"),
    "currency": Param(longest=3),
    "customer": Param(required=True),
    "description": Param(longest=5_000),
    "invoice": Param(),
    "metadata": Param(kind="strings", longest=500),
    "period": Param(
        kind="object",
        fields={"end": Param(kind="integer", required=True), "start": Param(kind="integer", required=True)},
    ),
    "pricing": Param(kind="object", fields={"price": Param()}),
    "quantity": Param(kind="integer"),
    "subscription": Param(),
    "unit_amount_decimal": Param(kind="decimal"),
}
LIST: Final[Spec] = {
    **PAGE,
    "created": Param(kind="range"),
    "customer": Param(),
    "invoice": Param(),
    "pending": Param(kind="boolean"),
}


def create(call: Call) -> dict[str, Any]:
    """`POST /v1/invoiceitems`."""
    given = call.params
    customer = customers.existing(call.store, given["customer"])
    price = _price(call)
    quantity, unit_amount = _units(given, price)
    period = given.get("period", {"start": call.now, "end": call.now})
    if period["end"] < period["start"]:
        raise Refusal(400, "Invalid period: must not end before it starts", param="period[end]")
    currency = (given.get("currency") or (price.currency if price is not None else "")).lower()
    if not currency:
        raise Refusal(400, "Missing required param: currency.", code="parameter_missing", param="currency")
    made = InvoiceItem(
        id=new_id("ii"),
        owner=customer.id,
        created=call.now,
        currency=currency,
        quantity=quantity,
        unit_amount_decimal=unit_amount,
        start=period["start"],
        end=period["end"],
        subscription=_subscription(call, customer.id),
        price=None if price is None else price.id,
        product=None if price is None else price.product,
        invoice=_draft(call, customer.id),
        details={"description": given.get("description"), "metadata": given.get("metadata", {})},
    )
    call.store.documents.put(made)
    if (invoice := call.store.documents.get(Invoice, made.invoice or "")) is not None:
        call.store.documents.put(dataclasses.replace(invoice, invoice_items=(*invoice.invoice_items, made.id)))
    return shape(made)


def retrieve(call: Call) -> dict[str, Any]:
    """`GET /v1/invoiceitems/{id}`."""
    found = call.store.documents.get(InvoiceItem, call.id)
    if found is None:
        raise errors.no_such("invoiceitem", call.id)
    return shape(found)


def list_all(call: Call) -> dict[str, Any]:
    """`GET /v1/invoiceitems`, newest first."""
    given = call.params
    wanted = [
        shape(one)
        for one in call.store.documents.of(InvoiceItem, owner=given.get("customer"))
        if given.get("invoice") in {None, one.invoice}
        and given.get("pending") in {None, one.invoice is None}
        and within(one.created, given.get("created"))
    ]
    return page(wanted, given, url="/v1/invoiceitems")


def shape(item: InvoiceItem) -> dict[str, Any]:
    """Return the object that a caller sees."""
    parent = None
    if item.subscription is not None:
        details = {"subscription": item.subscription, "subscription_item": item.subscription_item}
        parent = {"subscription_details": details, "type": "subscription_details"}
    return {
        "id": item.id,
        "object": "invoiceitem",
        "amount": amount_of(item),
        "currency": item.currency,
        "customer": item.owner,
        "customer_account": None,
        "date": item.created,
        "discountable": True,
        "discounts": [],
        "frozen_fields": None,
        "invoice": item.invoice,
        "invoicing_rules": None,
        "livemode": False,
        "net_amount": amount_of(item),
        "parent": parent,
        "period": {"start": item.start, "end": item.end},
        "pricing": item_pricing(item),
        "proration": item.proration,
        "proration_details": None,
        "quantity": item.quantity,
        "quantity_decimal": str(item.quantity),
        "tax_rates": [],
        "test_clock": None,
        **item.details,
    }


def _units(given: dict[str, Any], price: Price | None) -> tuple[int, str]:
    """Return quantity and amount of a unit: of exactly one of amount, unit_amount_decimal and price."""
    ways = [given.get("amount"), given.get("unit_amount_decimal"), price]
    if sum(way is not None for way in ways) != 1:
        message = "You must specify exactly one of amount, unit_amount_decimal and pricing[price]"
        raise Refusal(400, message, param="amount")
    quantity = given.get("quantity", 1)
    if quantity < 0:
        raise Refusal(400, "Invalid quantity: must be greater than or equal to 0", param="quantity")
    if given.get("amount") is not None:
        if "quantity" in given:
            raise Refusal(400, "You may only specify one of these parameters: amount, quantity", param="quantity")
        return 1, str(given["amount"])
    unit = price.unit_amount_decimal if price is not None else given["unit_amount_decimal"]
    return quantity, f"{Decimal(unit).normalize():f}"


def _price(call: Call) -> Price | None:
    price_id = call.params.get("pricing", {}).get("price")
    if price_id is None:
        return None
    price = prices.existing(call.store, price_id, "pricing[price]")
    if price.interval is not None:
        message = (
            "The price specified is set to `type=recurring` but this field only accepts prices with `type=one_time`."
        )
        raise Refusal(400, message, param="pricing[price]")
    return price


def _subscription(call: Call, customer: str) -> str | None:
    subscription_id = call.params.get("subscription")
    if subscription_id is None:
        return None
    found = call.store.documents.get(Subscription, subscription_id)
    if found is None or found.owner != customer:
        raise errors.no_such("subscription", subscription_id, param="subscription", status=400)
    return found.id


def _draft(call: Call, customer: str) -> str | None:
    invoice_id = call.params.get("invoice")
    if invoice_id is None:
        return None
    found = call.store.documents.get(Invoice, invoice_id)
    if found is None or found.owner != customer:
        raise errors.no_such("invoice", invoice_id, param="invoice", status=400)
    if found.status != "draft":
        raise Refusal(400, "This invoice is no longer editable", code="invoice_not_editable", param="invoice")
    return found.id


ROUTES: Final = (
    route("POST", "/v1/invoiceitems", CREATE, create),
    route("GET", "/v1/invoiceitems", LIST, list_all),
    route("GET", "/v1/invoiceitems/{id}", EXPAND, retrieve),
)
