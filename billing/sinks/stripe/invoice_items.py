"""Invoice items: usage of a period whose invoice is final, as a line of its own on the customer's next invoice.

Stripe has no identifier for them that it counts once. One idempotency key stands for the increment instead, in all its
attempts: Stripe repeats its first answer for a day, which is longer than anything is sent again.
"""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import Any, Final

from billing.core.errors import BillingError, Fatal, Rejected
from billing.sinks.sink import Answer, Payload, Reply
from billing.sinks.stripe import period_reader, subscriptions
from billing.sinks.stripe.meters import Meters
from billing.sinks.stripe.prices import active_prices
from billing.sinks.stripe.session import PAGE, Session

#: Where an item says which increment it is.
IDENTIFIER_KEY: Final = "billing_identifier"
#: Items of one customer that are looked through, the newest ones (L9).
ITEMS_MAX: Final = 1_000


def send(session: Session, meters: Meters, payload: Payload) -> Reply:
    """Make one invoice item. Never raises. What prevents it before the call is made is said as not executed."""
    try:
        with session.reaching(calls=False):
            params = _params(payload, _price(session, meters, payload))
    except Rejected as error:
        return Reply(answer=Answer.REFUSED, reason=str(error))
    except Fatal as error:
        return Reply(answer=Answer.FORBIDDEN, reason=str(error))
    except BillingError as error:
        return Reply(answer=Answer.UNREACHED, reason=str(error), silent=True)
    return session.send(
        lambda: session.client.v1.invoice_items.create(
            params, {"idempotency_key": payload.identifier, "max_network_retries": 0}
        ),
        said=_identifier,
        wanted=payload.identifier,
    )


def shown(session: Session, payload: Payload) -> int:
    """Return the units of the customer's items that carry the increment's identifier."""
    with session.reaching():
        page = session.client.v1.invoice_items.list({"customer": payload.customer_id, "limit": PAGE}, session.reads())
        found = itertools.islice(page.auto_paging_iter(), ITEMS_MAX)
        return sum(int(item.quantity) for item in found if _identifier(item) == payload.identifier)


def _params(payload: Payload, price: dict[str, Any]) -> Any:
    start, end = payload.period_start, payload.period_end
    named = f"{payload.units:,} units of {payload.event_name}"
    late = "" if start is None or end is None else f", used from {start:%Y-%m-%d} to {end:%Y-%m-%d}"
    params: dict[str, Any] = {
        "customer": payload.customer_id,
        "currency": price["currency"],
        "quantity": payload.units,
        "unit_amount_decimal": f"{Decimal(price['unit_amount_decimal']):f}",
        "description": named + late,
        "metadata": {IDENTIFIER_KEY: payload.identifier},
    }
    if start is not None and end is not None:
        params["period"] = {"start": int(start.timestamp()), "end": int(end.timestamp())}
    return params


def _price(session: Session, meters: Meters, payload: Payload) -> dict[str, Any]:
    """Return the price of a unit: that of the customer's latest subscription to the meter, else the meter's only one.

    Raises `Rejected` where one unit has no one price.
    """
    meter_id = meters.known(payload.event_name).meter_id
    known = period_reader.of_customer(session, payload.customer_id)
    ids = subscriptions.billed(known, {meter_id: payload.event_name})
    of_items = {item["price"]["id"]: item["price"] for one in known for item in one["items"]["data"]}
    prices = [of_items[one.price_id] for one in sorted(ids, key=lambda one: (not one.runs, -one.start.timestamp()))]
    if not prices:
        prices = active_prices(session, meter_id)
        if len(prices) != 1:
            rule = f"has {len(prices)} prices, and {payload.customer_id} is subscribed to none of them"
            raise Rejected(f"meter {payload.event_name!r}: {rule}")
    price = prices[0]
    # A unit of these has no price of its own: what it costs depends on how many there are.
    if price.get("billing_scheme") != "per_unit" or price.get("transform_quantity"):
        rule = "is tiered, or priced by packages: no invoice item can stand for its units"
        raise Rejected(f"price {price['id']} of meter {payload.event_name!r} {rule}")
    return price


def _identifier(item: Any) -> str | None:
    metadata = getattr(item, "metadata", None)
    return None if metadata is None else dict(metadata.to_dict()).get(IDENTIFIER_KEY)
