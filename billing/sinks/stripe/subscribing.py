"""Subscribes customers to what setup has made: one item for each meter that has a price and is not billed yet."""

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
    """A subscription that was made, or that bills these meters already; the meters in use that nothing bills."""

    subscription_id: str
    event_names: tuple[str, ...]
    created: bool
    #: They have no price: their usage waits until there is one, and a subscription to it.
    unpriced: tuple[str, ...] = ()


class Subscriber:
    """Subscribes customers to the prices of some meters. These are looked for once."""

    def __init__(self, session: Session, event_names: Sequence[str]) -> None:
        self._session, self._meters, self._wanted = session, Meters(session), tuple(event_names)
        self._prices: dict[str, str | None] = {}

    def subscribe(self, client_id: str, customer_id: str, *, since: datetime | None = None) -> Subscription:
        """Subscribe a customer, unless one of its subscriptions bills these meters. Safe to repeat.

        `since`: from then on, in the past, its usage is billed. Raises `InvalidValue` where no meter has a price, and
        what Stripe has against the customer.
        """
        known = period_reader.of_customer(self._session, customer_id)
        event_names = self._meters.event_names()
        with self._session.reaching(calls=False):
            bills = [one for one in subscriptions.billed(known, event_names) if one.runs]
        billed = {one.event_name: one.subscription_id for one in bills}
        found = {name: price for name in self._wanted if name not in billed and (price := self._price(name))}
        unpriced = tuple(name for name in self._wanted if name not in billed and name not in found)
        if found:
            made = customers.subscribe(
                self._session, client_id, customer_id, list(found.values()), before=len(known), since=since
            )
            return Subscription(subscription_id=made, event_names=tuple(found), created=True, unpriced=unpriced)
        have = [name for name in self._wanted if name in billed]
        if not have:
            rule = "no meter in use has one (see: billing stripe setup --price AMOUNT --currency eur)"
            raise InvalidValue("price", ", ".join(self._wanted), rule)
        return Subscription(subscription_id=billed[have[0]], event_names=tuple(have), created=False, unpriced=unpriced)

    def _price(self, event_name: str) -> str | None:
        if event_name not in self._prices:
            meter = self._meters.find(event_name)
            price = None if meter is None else prices.find_price(self._session, event_name, meter.meter_id)
            self._prices[event_name] = None if price is None else str(price["id"])
        return self._prices[event_name]
