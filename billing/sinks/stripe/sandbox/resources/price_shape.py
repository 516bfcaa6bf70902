"""A price as a caller sees it, in the form of a price and in the older one of a plan."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from billing.sinks.stripe.sandbox.billed_records import Price


def shape(price: Price) -> dict[str, Any]:
    """Return the object that a caller sees. `unit_amount` is there when it is whole."""
    whole = Decimal(price.unit_amount_decimal) % 1 == 0
    return {
        "id": price.id,
        "object": "price",
        "active": price.active,
        "billing_scheme": "per_unit",
        "created": price.created,
        "currency": price.currency,
        "custom_unit_amount": None,
        "livemode": False,
        "lookup_key": price.lookup_key,
        "product": price.product,
        "recurring": _recurring(price),
        "tax_behavior": "unspecified",
        "tiers_mode": None,
        "transform_quantity": None,
        "type": "one_time" if price.interval is None else "recurring",
        "unit_amount": int(Decimal(price.unit_amount_decimal)) if whole else None,
        "unit_amount_decimal": price.unit_amount_decimal,
        **price.details,
    }


def plan_shape(price: Price) -> dict[str, Any]:
    """Return a recurring price in the older form that a subscription's item still has."""
    seen = shape(price)
    same = ("active", "billing_scheme", "created", "currency", "livemode", "metadata", "nickname", "product")
    return {
        "id": price.id,
        "object": "plan",
        "amount": seen["unit_amount"],
        "amount_decimal": price.unit_amount_decimal,
        "interval": price.interval,
        "interval_count": price.interval_count,
        "meter": price.meter,
        "tiers_mode": None,
        "transform_usage": None,
        "trial_period_days": None,
        "usage_type": "licensed" if price.meter is None else "metered",
        **{name: seen[name] for name in same},
    }


def _recurring(price: Price) -> dict[str, Any] | None:
    if price.interval is None:
        return None
    return {
        "interval": price.interval,
        "interval_count": price.interval_count,
        "meter": price.meter,
        "trial_period_days": None,
        "usage_type": "licensed" if price.meter is None else "metered",
    }
