"""The items of a subscription: made, changed, and what is billed of an item that loses its price.

Source: Stripe's guide to managing a usage-based setup. In flexible billing mode what was reported by the change is an
invoice item; in classic mode it is not billed.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from billing.sinks.stripe.sandbox import errors
from billing.sinks.stripe.sandbox.billed_records import Item, Price, Subscription
from billing.sinks.stripe.sandbox.errors import Refusal
from billing.sinks.stripe.sandbox.invoicing.drafting import bill_until_now
from billing.sinks.stripe.sandbox.metadata import updated
from billing.sinks.stripe.sandbox.params import Param, Spec
from billing.sinks.stripe.sandbox.records import new_id
from billing.sinks.stripe.sandbox.resources import prices
from billing.sinks.stripe.sandbox.routing import Call

ITEMS_MAX: Final = 20
ITEM: Final[Spec] = {
    "metadata": Param(kind="strings", longest=500),
    "price": Param(),
    "quantity": Param(kind="integer"),
}


def new_item(call: Call, place: int, given: dict[str, Any], now: int) -> Item:
    """Return an item that starts now; `place` is for the parameter's name in a refusal."""
    price = prices.existing(call.store, given.get("price", ""), f"items[{place}][price]")
    if price.interval is None:
        message = (
            "The price specified is set to `type=one_time` but this field only accepts prices with `type=recurring`."
        )
        raise Refusal(400, message, param=f"items[{place}][price]")
    if price.meter is not None and "quantity" in given:
        message = "Quantity should not be specified where usage_type is `metered`."
        raise Refusal(400, message, param=f"items[{place}][quantity]")
    quantity = None if price.meter is not None else given.get("quantity", 1)
    return Item(
        id=new_id("si"),
        created=now,
        price=price.id,
        billed_from=now,
        quantity=quantity,
        metadata=given.get("metadata", {}),
    )


def changed_items(call: Call, subscription: Subscription) -> tuple[Item, ...]:
    """Return the items with what a call changes, adds and removes."""
    items = {item.id: item for item in subscription.items}
    for place, given in enumerate(call.params["items"]):
        item_id = given.get("id")
        if (item_id is not None or given.get("deleted")) and item_id not in items:
            raise errors.no_such("subscription_item", item_id or "", param=f"items[{place}][id]", status=400)
        if given.get("deleted"):
            del items[item_id]
            continue
        kept = items.get(item_id or "")
        wanted = {**({} if kept is None else {"price": kept.price}), **given}
        new = new_item(call, place, wanted, call.now)
        if kept is not None:
            same = kept.price == new.price
            quantity = kept.quantity if same and "quantity" not in given else new.quantity
            new = dataclasses.replace(
                kept,
                price=new.price,
                billed_from=kept.billed_from if same else call.now,
                quantity=quantity,
                metadata=updated({"metadata": kept.metadata}, given, ())["metadata"],
            )
        items[new.id] = new
    its_prices = prices_of(call, list(items.values()))
    if (its_prices[0].interval, its_prices[0].interval_count) != (subscription.interval, subscription.interval_count):
        raise Refusal(400, "The stand-in does not change the interval of a subscription.", param="items")
    return tuple(items.values())


def bill_old_prices(call: Call, before: Subscription, after: Subscription) -> None:
    """Settle the items that lose their price: usage that is reported later for it is on no invoice."""
    kept = {(item.id, item.price) for item in after.items}
    for item in before.items:
        if (item.id, item.price) in kept:
            continue
        if before.flexible and call.params.get("proration_behavior") != "none":
            bill_until_now(call.store, call.knobs, before, item, call.now)
        call.state.progress.cut_off(before, item.id, call.now)


def prices_of(call: Call, items: list[Item]) -> list[Price]:
    """Return the prices of a subscription's items: at least one, of one currency and interval, a meter once."""
    if not 1 <= len(items) <= ITEMS_MAX:
        raise Refusal(400, f"A subscription has from 1 to {ITEMS_MAX} items", code="parameter_missing", param="items")
    its_prices = [found for item in items if (found := call.store.documents.get(Price, item.price)) is not None]
    if len({(price.interval, price.interval_count) for price in its_prices}) > 1:
        raise Refusal(400, "The stand-in takes items of one interval in a subscription.", param="items")
    if len({price.currency for price in its_prices}) > 1:
        raise Refusal(400, "All prices on a subscription must have the same currency.", param="items")
    if len({price.id for price in its_prices}) < len(its_prices):
        raise Refusal(400, "A subscription cannot have two items of the same price.", param="items")
    return its_prices
