"""The lines of an invoice, as a caller sees them. Amounts are whole smallest units of the currency, rounded half up."""

from __future__ import annotations

import hashlib
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from billing.sinks.stripe.sandbox.billed_records import Price
from billing.sinks.stripe.sandbox.invoicing.records import Charge, Invoice, InvoiceItem


def rounded(amount: Decimal) -> int:
    """Return an amount in whole smallest units."""
    return int(amount.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def charge_line(invoice: Invoice, charge: Charge, price: Price, quantity: Decimal) -> dict[str, Any]:
    """Return the line of a subscription's item."""
    parent = {
        "invoice_item_details": None,
        "subscription_item_details": {
            "invoice_item": None,
            "proration": False,
            "proration_details": {"credited_items": None},
            "subscription": invoice.subscription,
            "subscription_item": charge.item,
        },
        "type": "subscription_item_details",
    }
    pricing = _pricing(price.unit_amount_decimal, price.id, price.product)
    period = {"start": charge.start, "end": charge.end}
    amount = rounded(quantity * Decimal(price.unit_amount_decimal))
    return _line(invoice, charge.item, amount, quantity, parent=parent, pricing=pricing, period=period)


def item_line(invoice: Invoice, item: InvoiceItem) -> dict[str, Any]:
    """Return the line of an invoice item."""
    parent = {
        "invoice_item_details": {
            "invoice_item": item.id,
            "proration": item.proration,
            "proration_details": {"credited_items": None},
            "subscription": item.subscription,
        },
        "subscription_item_details": None,
        "type": "invoice_item_details",
    }
    line = _line(
        invoice,
        item.id,
        amount_of(item),
        Decimal(item.quantity),
        parent=parent,
        pricing=item_pricing(item),
        period={"start": item.start, "end": item.end},
    )
    return {**line, "description": item.details["description"], "metadata": item.details["metadata"]}


def amount_of(item: InvoiceItem) -> int:
    """Return an invoice item's amount."""
    return rounded(item.quantity * Decimal(item.unit_amount_decimal))


def item_pricing(item: InvoiceItem) -> dict[str, Any]:
    """Return what a unit of an invoice item costs, and by which price if by one."""
    return _pricing(item.unit_amount_decimal, item.price, item.product)


def _pricing(unit_amount_decimal: str, price: str | None, product: str | None) -> dict[str, Any]:
    details = None if price is None else {"price": price, "product": product}
    return {"price_details": details, "type": "price_details", "unit_amount_decimal": unit_amount_decimal}


def _line(invoice: Invoice, source: str, amount: int, quantity: Decimal, **more: Any) -> dict[str, Any]:
    digest = hashlib.sha256(f"{invoice.id}|{source}|{more['period']}".encode()).hexdigest()
    return {
        "id": f"il_{digest[:24]}",
        "object": "line_item",
        "amount": amount,
        "currency": invoice.currency,
        "description": None,
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": invoice.id,
        "livemode": False,
        "metadata": {},
        "pretax_credit_amounts": [],
        "quantity": int(quantity),
        "quantity_decimal": f"{quantity:f}",
        "subscription": invoice.subscription,
        "subtotal": amount,
        "taxes": [],
        **more,
    }
