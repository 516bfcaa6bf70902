"""Subscribes a customer to what setup has made: one item for each meter that has a price and is not billed yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime

from billing.core.errors import InvalidValue
from billing.sinks.stripe import customers, period_reader, prices, subscriptions
from billing.sinks.stripe.meters import Meters
from billing.sinks.stripe.session import Session


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Subscription:
    """A subscription that was made, or that bills these meters already."""

    subscription_id: str
    event_names: tuple[str, ...]
    created: bool


def subscribe(
    session: Session, client_id: str, customer_id: str, event_names: Sequence[str], *, since: datetime | None = None
) -> Subscription:
    """Subscribe a customer to the prices of meters, unless one of its subscriptions bills them. Safe to repeat.

    `since`: from then on, in the past, its usage is billed.

    Raises `InvalidValue` where no meter has a price, and what Stripe has against the customer.
    """
    meters = Meters(session)
    known = period_reader.of_customer(session, customer_id)
    bills = [one for one in subscriptions.billed(known, meters.event_names()) if one.runs]
    billed = {one.event_name: one.subscription_id for one in bills}
    wanted = [name for name in event_names if name not in billed]
    found = {name: price for name in wanted if (price := _price(session, meters, name)) is not None}
    if found:
        price_ids, before = list(found.values()), len(known)
        made = customers.subscribe(session, client_id, customer_id, price_ids, before=before, since=since)
        return Subscription(subscription_id=made, event_names=tuple(found), created=True)
    have = [name for name in event_names if name in billed]
    if not have:
        rule = "no meter in use has one (see: billing stripe setup --price AMOUNT --currency eur)"
        raise InvalidValue("price", ", ".join(event_names), rule)
    return Subscription(subscription_id=billed[have[0]], event_names=tuple(have), created=False)


def _price(session: Session, meters: Meters, event_name: str) -> str | None:
    meter = meters.find(event_name)
    price = None if meter is None else prices.find_price(session, event_name, meter.meter_id)
    return None if price is None else str(price["id"])
