"""What the stand-in keeps of invoices. Values only, no I/O. Times are seconds since the Unix epoch."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

from billing.sinks.stripe.sandbox.records import Document


@dataclasses.dataclass(frozen=True, kw_only=True)
class Charge:
    """One item of a subscription on an invoice, for [start, end).

    `quantity` None: the usage that is there when the invoice becomes final.
    """

    item: str
    price: str
    start: int
    end: int
    quantity: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Invoice(Document):
    """An invoice, owned by the customer. `lines` are there once it is final; until then they are computed."""

    created: int
    subscription: str
    period_start: int
    period_end: int
    finalizes_at: int
    finalized_at: int | None = None
    status: str = "draft"
    billing_reason: str
    currency: str
    number: str | None = None
    charges: tuple[Charge, ...]
    invoice_items: tuple[str, ...]
    lines: tuple[dict[str, Any], ...] = ()

    @classmethod
    def of(cls, kept: dict[str, Any]) -> Self:
        """Return the invoice that was kept."""
        charges = tuple(Charge(**charge) for charge in kept["charges"])
        lists = {"charges": charges, "invoice_items": tuple(kept["invoice_items"]), "lines": tuple(kept["lines"])}
        return cls(**{**kept, **lists})


@dataclasses.dataclass(frozen=True, kw_only=True)
class InvoiceItem(Document):
    """An amount that waits for the customer's next invoice, or for that of one subscription.

    `quantity` times `unit_amount_decimal`, in the currency's smallest unit, is the amount.
    """

    created: int
    currency: str
    quantity: int
    unit_amount_decimal: str
    start: int
    end: int
    subscription: str | None = None
    subscription_item: str | None = None
    price: str | None = None
    product: str | None = None
    invoice: str | None = None
    proration: bool = False
    details: dict[str, Any]
