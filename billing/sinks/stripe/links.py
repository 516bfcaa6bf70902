"""Which Stripe customer pays for a client. A link is made once and never changed: increments name the customer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from billing.core.errors import Conflict, InvalidValue
from billing.schema.stripe import stripe_customer

_CUSTOMER_ID: Final = re.compile(r"cus_[A-Za-z0-9_]{1,251}", re.ASCII)


def check_customer_id(value: object) -> str:
    """Return the id of a Stripe customer. Raises `InvalidValue`."""
    if not isinstance(value, str) or not _CUSTOMER_ID.fullmatch(value):
        raise InvalidValue("customer_id", value, "must be a Stripe customer, as cus_…, of at most 255 characters")
    return value


def link(connection: Connection, client_id: str, customer_id: str) -> bool:
    """Link a known client to a customer; return whether the link is new. Raises `Conflict` when either has another."""
    values = {"client_id": client_id, "customer_id": customer_id}
    made = insert(stripe_customer).values(values).on_conflict_do_nothing().returning(stripe_customer.c.client_id)
    if connection.execute(made).one_or_none() is not None:
        return True
    has = customers_of(connection, [client_id]).get(client_id)
    if has == customer_id:
        return False
    if has is not None:
        raise Conflict(f"customer_id: {customer_id!r}: client {client_id!r} is linked to {has!r}, which stays")
    other = select(stripe_customer.c.client_id).where(stripe_customer.c.customer_id == customer_id)
    owner = connection.execute(other).scalar_one()
    raise Conflict(f"customer_id: {customer_id!r}: is the customer of client {owner!r} already")


def customers_of(connection: Connection, client_ids: Sequence[str]) -> dict[str, str]:
    """Return the customers of those of some clients that are linked."""
    found = select(stripe_customer.c.client_id, stripe_customer.c.customer_id).where(
        stripe_customer.c.client_id.in_(client_ids)
    )
    return {row.client_id: row.customer_id for row in connection.execute(found)}
