"""How many units a customer was billed: the number that must be the log's in the end."""

from __future__ import annotations

from typing import Final

from billing.sinks.stripe.sandbox.billed_records import Price
from billing.sinks.stripe.sandbox.invoicing.records import Invoice, InvoiceItem
from billing.sinks.stripe.sandbox.store import Store

EVENT_NAME: Final = "event_name"


def billed(store: Store, customer: str, event_name: str) -> int:
    """Return the units on final invoices, and those of invoice items, also of the ones that still wait.

    An invoice item counts for the event name in its metadata; one that names none, for every event name.
    """
    invoices = [one for one in store.documents.of(Invoice, owner=customer) if one.finalized_at is not None]
    lines = [line for invoice in invoices for line in invoice.lines if line["parent"]["subscription_item_details"]]
    metered = sum(
        line["quantity"] for line in lines if _counted(store, line["pricing"]["price_details"]["price"]) == event_name
    )
    items = store.documents.of(InvoiceItem, owner=customer)
    return int(metered) + sum(item.quantity for item in items if _name(store, item, event_name) == event_name)


def _name(store: Store, item: InvoiceItem, default: str) -> str | None:
    if item.price is not None and (counted := _counted(store, item.price)) is not None:
        return counted
    found: str = item.details["metadata"].get(EVENT_NAME, default)
    return found


def _counted(store: Store, price_id: str) -> str | None:
    """Return the event name that a price counts."""
    price = store.documents.get(Price, price_id)
    meter = None if price is None or price.meter is None else store.meter(price.meter)
    return None if meter is None else meter.event_name
