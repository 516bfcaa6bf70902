"""Subscriptions: which prices a customer pays, and in which periods.

Sources: that periods are the items', and start at the billing cycle's anchor, is in the API reference; what a change
of price does to usage is in the guide to managing a usage-based setup.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from billing.sinks.stripe.sandbox import errors
from billing.sinks.stripe.sandbox.billed_records import Subscription
from billing.sinks.stripe.sandbox.errors import Refusal
from billing.sinks.stripe.sandbox.metadata import updated
from billing.sinks.stripe.sandbox.pages import page
from billing.sinks.stripe.sandbox.params import EXPAND, PAGE, Param, Spec, within
from billing.sinks.stripe.sandbox.periods import next_boundary
from billing.sinks.stripe.sandbox.records import new_id
from billing.sinks.stripe.sandbox.resources import customers
from billing.sinks.stripe.sandbox.resources.subscription_items import (
    ITEM,
    bill_old_prices,
    changed_items,
    new_item,
    prices_of,
)
from billing.sinks.stripe.sandbox.resources.subscription_shape import shape
from billing.sinks.stripe.sandbox.routing import Call, route

_FIELDS: Final[Spec] = {
    **EXPAND,
    "cancel_at_period_end": Param(kind="boolean"),
    "collection_method": Param(choices=("charge_automatically", "send_invoice")),
    "days_until_due": Param(kind="integer"),
    "description": Param(longest=500),
    "metadata": Param(kind="strings", longest=500),
    "proration_behavior": Param(choices=("create_prorations", "none")),
}
CREATE: Final[Spec] = {
    **_FIELDS,
    "backdate_start_date": Param(kind="integer"),
    "billing_cycle_anchor": Param(kind="integer"),
    "billing_mode": Param(kind="object", fields={"type": Param(required=True, choices=("classic", "flexible"))}),
    "currency": Param(longest=3),
    "customer": Param(required=True),
    "items": Param(kind="objects", fields=ITEM),
}
UPDATE: Final[Spec] = {
    **_FIELDS,
    "items": Param(kind="objects", fields={**ITEM, "id": Param(), "deleted": Param(kind="boolean")}),
}
LIST: Final[Spec] = {
    **PAGE,
    "created": Param(kind="range"),
    "current_period_end": Param(kind="range"),
    "current_period_start": Param(kind="range"),
    "customer": Param(),
    "price": Param(),
    "status": Param(choices=("active", "all", "canceled", "ended")),
}
CANCEL: Final[Spec] = {
    **EXPAND,
    "cancellation_details": Param(kind="object", fields={"comment": Param()}),
    "invoice_now": Param(kind="boolean"),
    "prorate": Param(kind="boolean"),
}
_DETAILS: Final = ("collection_method", "days_until_due", "description")
_NONE: Final[dict[str, Any]] = {
    "collection_method": "charge_automatically",
    "days_until_due": None,
    "description": None,
    "metadata": {},
    "comment": None,
}


def create(call: Call) -> dict[str, Any]:
    """`POST /v1/subscriptions`. Without an anchor the periods start now; with one the first period ends there."""
    given = call.params
    customer = customers.existing(call.store, given["customer"])
    items = [new_item(call, place, one, call.now) for place, one in enumerate(given.get("items", []))]
    its_prices = prices_of(call, items)
    interval, count = its_prices[0].interval or "", its_prices[0].interval_count
    since = given.get("backdate_start_date", call.now)
    if not since <= call.now < next_boundary(since, interval, count, since):
        message = "The stand-in backdates a subscription by less than one period, and not into the future."
        raise Refusal(400, message, param="backdate_start_date")
    items = [dataclasses.replace(item, billed_from=since) for item in items]
    anchor = given.get("billing_cycle_anchor", since)
    natural_end = next_boundary(since, interval, count, since)
    if not (anchor == since or call.now <= anchor <= natural_end):
        message = "billing_cycle_anchor must lie between now and the next natural billing date of the plan"
        raise Refusal(400, message, param="billing_cycle_anchor")
    made = Subscription(
        id=new_id("sub"),
        owner=customer.id,
        created=call.now,
        status="active",
        currency=its_prices[0].currency,
        billing_cycle_anchor=anchor,
        start_date=since,
        period_start=since,
        period_end=next_boundary(anchor, interval, count, call.now),
        interval=interval,
        interval_count=count,
        items=tuple(items),
        flexible=given.get("billing_mode", {}).get("type", call.knobs.billing_mode) == "flexible",
        cancel_at_period_end=given.get("cancel_at_period_end", False),
        canceled_at=call.now if given.get("cancel_at_period_end") else None,
        details=updated(_NONE, given, _DETAILS),
    )
    return shape(call.store, call.state.progress.begin(made))


def retrieve(call: Call) -> dict[str, Any]:
    """`GET /v1/subscriptions/{id}`."""
    return shape(call.store, found(call))


def list_all(call: Call) -> dict[str, Any]:
    """`GET /v1/subscriptions`, newest first: those that are not canceled, unless a status is asked for."""
    given = call.params
    made = [
        shape(call.store, one)
        for one in call.store.documents.of(Subscription, owner=given.get("customer"))
        if _has_status(one, given.get("status"))
        and within(one.created, given.get("created"))
        and within(one.period_start, given.get("current_period_start"))
        and within(one.period_end, given.get("current_period_end"))
        and ("price" not in given or given["price"] in {item.price for item in one.items})
    ]
    return page(made, given, url="/v1/subscriptions")


def update(call: Call) -> dict[str, Any]:
    """`POST /v1/subscriptions/{id}`. An item whose price changes is billed at the new one from now on."""
    subscription = _alive(call)
    changed = dataclasses.replace(subscription, details=updated(subscription.details, call.params, _DETAILS))
    if (at_end := call.params.get("cancel_at_period_end")) is not None:
        changed = dataclasses.replace(changed, cancel_at_period_end=at_end, canceled_at=call.now if at_end else None)
    if "items" in call.params:
        changed = dataclasses.replace(changed, items=changed_items(call, subscription))
        bill_old_prices(call, subscription, changed)
    call.store.documents.put(changed)
    return shape(call.store, changed)


def cancel(call: Call) -> dict[str, Any]:
    """`DELETE /v1/subscriptions/{id}`: ended at once. What was used is billed only if `invoice_now` asks for it."""
    subscription = _alive(call)
    details = {**subscription.details, "comment": call.params.get("cancellation_details", {}).get("comment")}
    ended = dataclasses.replace(
        subscription, status="canceled", canceled_at=call.now, ended_at=call.now, details=details
    )
    call.store.documents.put(ended)
    if call.params.get("invoice_now"):
        ended = call.state.progress.end_now(ended, call.now)
    return shape(call.store, ended)


def found(call: Call) -> Subscription:
    """Return the subscription that the call's path names."""
    subscription = call.store.documents.get(Subscription, call.id)
    if subscription is None:
        raise errors.no_such("subscription", call.id)
    return subscription


def _alive(call: Call) -> Subscription:
    subscription = found(call)
    if subscription.status == "canceled":
        # Stripe's own sentence: a canceled subscription is not found by a call that would change it.
        raise errors.no_such("subscription", call.id)
    return subscription


def _has_status(subscription: Subscription, wanted: str | None) -> bool:
    if wanted == "all":
        return True
    if wanted in {"canceled", "ended"}:
        return subscription.status == "canceled"
    return subscription.status == "active"


ROUTES: Final = (
    route("POST", "/v1/subscriptions", CREATE, create),
    route("GET", "/v1/subscriptions", LIST, list_all),
    route("GET", "/v1/subscriptions/{id}", EXPAND, retrieve),
    route("POST", "/v1/subscriptions/{id}", UPDATE, update),
    route("DELETE", "/v1/subscriptions/{id}", CANCEL, cancel),
)
