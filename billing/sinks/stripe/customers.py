"""Customers at Stripe: whether one can pay, one made for a client, and a subscription that bills what it uses."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from billing.core.errors import Rejected
from billing.sinks.stripe.session import Session

#: Where a customer made here says whose it is.
CLIENT_KEY: Final = "billing_client"


def why_not(session: Session, customer_id: str) -> str:
    """Return why nothing can be billed to a customer, or "". Raises `Unreachable` and `Fatal`."""
    try:
        with session.reaching():
            found: Any = session.client.v1.customers.retrieve(customer_id, None, session.reads()).to_dict()
    except Rejected as error:
        if "No such customer" in str(error):
            return f"is no customer at {session.where} ({session.kind.value})"
        raise
    return "was deleted at Stripe" if found.get("deleted") else ""


def make(session: Session, client_id: str, *, since: datetime, instead_of: str | None = None) -> str:
    """Make the customer of a client; return its id.

    For a day another call for the same client, which was added at `since`, makes no other one (`instead_of` the same);
    after that the link says that there is one.
    """
    with session.reaching():
        made = session.client.v1.customers.create(
            {"name": client_id, "metadata": {CLIENT_KEY: client_id}},
            session.once("customer", client_id, since, instead_of),
        )
        return made.id


def subscribe(
    session: Session,
    client_id: str,
    customer_id: str,
    price_ids: Sequence[str],
    *,
    before: int,
    since: datetime | None,
) -> str:
    """Subscribe a customer to metered prices; return the subscription's id. `since`: it begins then, in the past.

    `before`: how many subscriptions it ever had, so that one that was cancelled may be followed by another.
    """
    params: Any = {
        "customer": customer_id,
        "items": [{"price": price_id} for price_id in price_ids],
        "metadata": {CLIENT_KEY: client_id},
    }
    if since is not None:
        params["backdate_start_date"] = int(since.timestamp())
    with session.reaching():
        made = session.client.v1.subscriptions.create(
            params, session.once("subscription", client_id, customer_id, before, *price_ids)
        )
        return made.id
