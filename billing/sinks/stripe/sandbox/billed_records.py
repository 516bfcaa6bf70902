"""What the stand-in keeps of billing: products, prices, subscriptions. Values only, no I/O.

Times are seconds since the Unix epoch; amounts are texts of decimals in the currency's smallest unit.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Self

from billing.sinks.stripe.sandbox.records import Document


@dataclasses.dataclass(frozen=True, kw_only=True)
class Product(Document):
    """What is sold; `details` are the fields that the caller set."""

    created: int
    active: bool
    details: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Price(Document):
    """What a unit costs. `interval` is None for a price that is paid once; `meter` is what a metered one counts."""

    created: int
    active: bool
    product: str
    currency: str
    unit_amount_decimal: str
    lookup_key: str | None
    interval: str | None
    interval_count: int = 1
    meter: str | None = None
    details: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """One price of a subscription, from `billed_from` on: the start of its period, or the change to this price."""

    id: str
    created: int
    price: str
    billed_from: int
    quantity: int | None = None
    metadata: dict[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subscription(Document):
    """A customer's subscription, owned by the customer. Its items share one period, [period_start, period_end)."""

    created: int
    status: str
    currency: str
    billing_cycle_anchor: int
    period_start: int
    period_end: int
    interval: str
    interval_count: int
    items: tuple[Item, ...]
    flexible: bool
    cancel_at_period_end: bool = False
    canceled_at: int | None = None
    ended_at: int | None = None
    latest_invoice: str | None = None
    #: Earlier than `created` where it was backdated.
    start_date: int | None = None
    details: dict[str, Any]

    @classmethod
    def of(cls, kept: dict[str, Any]) -> Self:
        """Return the subscription that was kept."""
        return cls(**{**kept, "items": tuple(Item(**item) for item in kept["items"])})
