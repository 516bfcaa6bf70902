"""Invoices are made, and become final. Each function does one step; when it is done is `progress.py`'s business."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from billing.sinks.stripe.sandbox.billed_records import Item, Price, Subscription
from billing.sinks.stripe.sandbox.invoicing.lines import charge_line, item_line
from billing.sinks.stripe.sandbox.invoicing.records import Charge, Invoice, InvoiceItem
from billing.sinks.stripe.sandbox.invoicing.usage import used
from billing.sinks.stripe.sandbox.knobs import Knobs
from billing.sinks.stripe.sandbox.records import new_id
from billing.sinks.stripe.sandbox.store import Store


def draft(
    store: Store, subscription: Subscription, charges: Iterable[Charge], *, at: int, finalizes_at: int, reason: str
) -> Invoice:
    """Make a draft, and put on it what waits for the customer's next invoice."""
    made = Invoice(
        id=new_id("in"),
        owner=subscription.owner,
        created=at,
        subscription=subscription.id,
        period_start=subscription.period_start,
        period_end=at if reason == "subscription_cycle" else subscription.period_start,
        finalizes_at=finalizes_at,
        billing_reason=reason,
        currency=subscription.currency,
        charges=tuple(charges),
        invoice_items=(),
    )
    waiting = [item for item in store.documents.of(InvoiceItem, owner=subscription.owner) if _lands(item, subscription)]
    for item in waiting:
        store.documents.put(dataclasses.replace(item, invoice=made.id))
    made = dataclasses.replace(made, invoice_items=tuple(item.id for item in reversed(waiting)))
    store.documents.put(made)
    return made


def finalized(store: Store, knobs: Knobs, invoice: Invoice, at: int) -> Invoice:
    """Make an invoice final: its lines never change again. One of 0 is paid at once, as documented."""
    lines = tuple(lines_of(store, knobs, invoice, at))
    status = "open" if sum(line["amount"] for line in lines) > 0 else "paid"
    number = f"{invoice.owner[-8:].upper()}-{store.documents.place(invoice):04d}"
    final = dataclasses.replace(invoice, finalized_at=at, status=status, lines=lines, number=number)
    store.documents.put(final)
    return final


def lines_of(store: Store, knobs: Knobs, invoice: Invoice, now: int) -> list[dict[str, Any]]:
    """Return an invoice's lines: those that it was finalized with, or for a draft what they would be now."""
    if invoice.finalized_at is not None:
        return list(invoice.lines)
    lines = []
    for charge in invoice.charges:
        price = _price(store, charge.price)
        quantity = quantity_of(store, knobs, invoice, charge, now)
        lines.append(charge_line(invoice, charge, price, quantity))
    items = (store.documents.get(InvoiceItem, item_id) for item_id in invoice.invoice_items)
    return lines + [item_line(invoice, item) for item in items if item is not None]


def quantity_of(store: Store, knobs: Knobs, invoice: Invoice, charge: Charge, now: int) -> Decimal:
    """Return how many units of a charge an invoice would have now."""
    if charge.quantity is not None:
        return Decimal(charge.quantity)
    meter_id = _price(store, charge.price).meter or ""
    return used(store, knobs, meter_id, invoice.owner, (charge.start, charge.end), now)


def usage_charges(store: Store, subscription: Subscription, end: int) -> list[Charge]:
    """Return the metered items' usage of the period until `end`, or since the change to the price that they have."""
    return [
        Charge(item=item.id, price=item.price, start=max(item.billed_from, subscription.period_start), end=end)
        for item in subscription.items
        if _price(store, item.price).meter is not None
    ]


def advance_charges(store: Store, subscription: Subscription) -> list[Charge]:
    """Return what is paid ahead for the subscription's period: the items that are not metered."""
    return [
        Charge(
            item=item.id,
            price=item.price,
            start=subscription.period_start,
            end=subscription.period_end,
            quantity=item.quantity,
        )
        for item in subscription.items
        if _price(store, item.price).meter is None
    ]


def bill_until_now(store: Store, knobs: Knobs, subscription: Subscription, item: Item, now: int) -> None:
    """Bill what an item used at the price that it loses: an invoice item of what was reported by now, nothing later."""
    price = _price(store, item.price)
    start = max(item.billed_from, subscription.period_start)
    quantity = used(store, knobs, price.meter or "", subscription.owner, (start, now), now)
    if not quantity:
        return
    made = InvoiceItem(
        id=new_id("ii"),
        owner=subscription.owner,
        created=now,
        currency=price.currency,
        quantity=int(quantity),
        unit_amount_decimal=price.unit_amount_decimal,
        start=start,
        end=now,
        subscription=subscription.id,
        subscription_item=item.id,
        price=price.id,
        product=price.product,
        proration=True,
        details={"description": None, "metadata": {}},
    )
    store.documents.put(made)


def _lands(item: InvoiceItem, subscription: Subscription) -> bool:
    return (
        item.invoice is None and item.currency == subscription.currency and item.subscription in {None, subscription.id}
    )


def _price(store: Store, price_id: str) -> Price:
    price = store.documents.get(Price, price_id)
    assert price is not None  # noqa: S101 - prices are never removed
    return price
