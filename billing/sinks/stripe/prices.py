"""Products and prices of meters at Stripe, found by what they say of themselves: metadata, and a lookup key."""

from __future__ import annotations

import dataclasses
import itertools
from decimal import Decimal
from typing import Any, Final

from billing.core.errors import Fatal
from billing.sinks.stripe.session import PAGE, Session

#: Where a product made here says which meter it is of; a price's lookup key says it after `LOOKUP`.
METER_KEY: Final = "billing_meter"
LOOKUP: Final = "billing:"
#: Products, and prices of one meter, that are looked through (L9).
FOUND_MAX: Final = 1_000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What one unit is to cost: `amount` in the currency's smallest unit, and how often there is an invoice."""

    amount: Decimal
    currency: str
    interval: str = "month"

    def __str__(self) -> str:
        return f"{self.amount.normalize():f} {self.currency} per unit, each {self.interval}"


def lookup_key(event_name: str) -> str:
    """Return the lookup key of the price that setup makes for a meter."""
    return f"{LOOKUP}{event_name}"


def find_price(session: Session, event_name: str, meter_id: str) -> dict[str, Any] | None:
    """Return the price that subscriptions made here get: the one with the lookup key, else the meter's only one."""
    with session.reaching():
        page = session.client.v1.prices.list(
            {"lookup_keys": [lookup_key(event_name)], "active": True, "limit": 1}, session.reads()
        )
        named = [one.to_dict() for one in page.data]
    if named:
        _check(named[0], event_name, meter_id)
        return named[0]
    found = active_prices(session, meter_id)
    return found[0] if len(found) == 1 else None


def active_prices(session: Session, meter_id: str) -> list[dict[str, Any]]:
    """Return the active prices of a meter."""
    with session.reaching():
        page = session.client.v1.prices.list(
            {"active": True, "recurring": {"meter": meter_id, "usage_type": "metered"}, "limit": PAGE},
            session.reads(),
        )
        return [one.to_dict() for one in itertools.islice(page.auto_paging_iter(), FOUND_MAX)]


def find_product(session: Session, event_name: str) -> str | None:
    """Return the id of the product that was made for a meter, or None."""
    with session.reaching():
        page = session.client.v1.products.list({"active": True, "limit": PAGE}, session.reads())
        for found in itertools.islice(page.auto_paging_iter(), FOUND_MAX):
            if found.metadata.to_dict().get(METER_KEY) == event_name:
                return found.id
    return None


def make_product(session: Session, event_name: str, unit: str) -> str:
    """Make the product of a meter; return its id."""
    with session.reaching():
        made = session.client.v1.products.create(
            {"name": f"{unit.capitalize()} ({event_name})", "metadata": {METER_KEY: event_name}},
            session.once("product", event_name, unit),
        )
        return made.id


def make_price(session: Session, event_name: str, meter_id: str, product_id: str, wanted: Wanted) -> str:
    """Make the metered price of a meter; return its id."""
    params: Any = {
        "product": product_id,
        "currency": wanted.currency,
        "unit_amount_decimal": f"{wanted.amount:f}",
        "recurring": {"interval": wanted.interval, "usage_type": "metered", "meter": meter_id},
        "lookup_key": lookup_key(event_name),
        "metadata": {METER_KEY: event_name},
    }
    with session.reaching():
        made = session.client.v1.prices.create(params, session.once("price", event_name, meter_id, product_id, wanted))
        return made.id


def shown(price: dict[str, Any]) -> str:
    """Return what a price costs, in words."""
    amount, interval = price.get("unit_amount_decimal"), (price.get("recurring") or {}).get("interval")
    if amount is None:
        return f"tiers, in {price['currency']}"
    return str(Wanted(amount=Decimal(amount), currency=price["currency"], interval=interval or ""))


def differs(price: dict[str, Any], wanted: Wanted) -> str:
    """Return what a price costs where that is not what is wanted, or ""."""
    has = shown(price)
    # Stripe writes an amount without the zeros at its end.
    return "" if has == str(wanted) else f"costs {has}"


def _check(price: dict[str, Any], event_name: str, meter_id: str) -> None:
    recurring = price.get("recurring") or {}
    if recurring.get("meter") != meter_id:
        rule = f"has the lookup key {lookup_key(event_name)!r}, and does not count that meter: move the key at Stripe"
        raise Fatal(f"price {price['id']}: {rule}")
