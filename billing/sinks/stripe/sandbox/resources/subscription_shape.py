"""A subscription as a caller sees it, with its items: what billing does not use of Stripe's form is null."""

from __future__ import annotations

from typing import Any, Final

from billing.sinks.stripe.sandbox.billed_records import Item, Price, Subscription
from billing.sinks.stripe.sandbox.resources import price_shape
from billing.sinks.stripe.sandbox.store import Store

_NOTHING: Final = dict.fromkeys(
    (
        "application",
        "application_fee_percent",
        "billing_cycle_anchor_config",
        "billing_thresholds",
        "customer_account",
        "default_payment_method",
        "default_source",
        "managed_payments",
        "next_pending_invoice_item_invoice",
        "on_behalf_of",
        "pause_collection",
        "pending_invoice_item_interval",
        "pending_setup_intent",
        "pending_update",
        "presentment_details",
        "schedule",
        "status_details",
        "test_clock",
        "transfer_data",
        "trial_end",
        "trial_start",
    )
)
_FIXED: Final[dict[str, Any]] = {
    "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
    "billing_schedules": [],
    "default_tax_rates": [],
    "discounts": [],
    "invoice_settings": {
        "account_tax_ids": None,
        "custom_fields": None,
        "description": None,
        "footer": None,
        "issuer": {"account": None, "type": "self"},
    },
    "livemode": False,
    "payment_settings": {
        "payment_method_options": None,
        "payment_method_types": None,
        "save_default_payment_method": "off",
    },
    "trial_settings": {"end_behavior": {"billing_cycle_anchor": None, "missing_payment_method": "create_invoice"}},
}


def shape(store: Store, subscription: Subscription) -> dict[str, Any]:
    """Return the object that a caller sees. The periods are on the items."""
    details = dict(subscription.details)
    comment = details.pop("comment")
    asked = subscription.canceled_at is not None
    items = [item_shape(store, subscription, item) for item in subscription.items]
    return {
        **_NOTHING,
        **_FIXED,
        "id": subscription.id,
        "object": "subscription",
        "billing_cycle_anchor": subscription.billing_cycle_anchor,
        "billing_mode": _billing_mode(subscription),
        "cancel_at": subscription.period_end if subscription.cancel_at_period_end else None,
        "cancel_at_period_end": subscription.cancel_at_period_end,
        "canceled_at": subscription.canceled_at,
        "cancellation_details": {
            "comment": comment,
            "feedback": None,
            "feedback_option": None,
            "reason": "cancellation_requested" if asked else None,
        },
        "created": subscription.created,
        "currency": subscription.currency,
        "customer": subscription.owner,
        "ended_at": subscription.ended_at,
        "items": {
            "object": "list",
            "data": items,
            "has_more": False,
            "url": f"/v1/subscription_items?subscription={subscription.id}",
        },
        "latest_invoice": subscription.latest_invoice,
        "start_date": subscription.created if subscription.start_date is None else subscription.start_date,
        "status": subscription.status,
        **details,
    }


def item_shape(store: Store, subscription: Subscription, item: Item) -> dict[str, Any]:
    """Return one item as a caller sees it."""
    price = store.documents.get(Price, item.price)
    assert price is not None  # noqa: S101 - prices are never removed
    return {
        "id": item.id,
        "object": "subscription_item",
        "billed_until": None,
        "billing_thresholds": None,
        "created": item.created,
        "current_period_end": subscription.period_end,
        "current_period_start": subscription.period_start,
        "current_trial": None,
        "discounts": [],
        "metadata": item.metadata,
        "plan": price_shape.plan_shape(price),
        "price": price_shape.shape(price),
        "quantity": item.quantity,
        "subscription": subscription.id,
        "tax_rates": [],
    }


def _billing_mode(subscription: Subscription) -> dict[str, Any]:
    flexible = {"proration_discounts": "included"} if subscription.flexible else None
    return {"flexible": flexible, "type": "flexible" if subscription.flexible else "classic", "updated_at": None}
