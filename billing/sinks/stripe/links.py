"""Which Stripe customer pays for a client. Increments name it: a link is made once, and moved for a reason."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as insert_unless
from sqlalchemy.exc import IntegrityError

from billing.core.errors import Conflict, InvalidValue
from billing.schema.advisory import Guard
from billing.schema.stripe import stripe_customer, stripe_link_change

_CUSTOMER_ID: Final = re.compile(r"cus_[A-Za-z0-9_]{1,251}", re.ASCII)
REASON_LENGTH_MAX: Final = 500

#: A plan that has read the old link is waited for: what it writes for the old customer is moved as well.
_AFTER_PLAN: Final = text(f"SELECT pg_advisory_xact_lock({int(Guard.STRIPE_PLAN)}, 0)")

#: What the old customer was not billed for: nothing of it is in doubt, so that the next plan gives it another
#: identifier, to the customer that the client has then. What it was sent before is on record in its attempts.
_TO_REISSUE: Final = text("""
UPDATE stripe_increment
SET state = 'pending', closes_at = LEAST(closes_at, CAST(:now AS timestamptz)), first_attempt_at = NULL, sent_to = NULL,
    reason = 'its client was moved to ' || CAST(:customer_id AS text)
WHERE client_id = :client_id AND customer_id = :was AND state IN ('pending', 'rejected')
""")
#: What is on its way to the old customer goes to the new one, should the call turn out not to have been executed.
_CLOSE_SENDING: Final = text("""
UPDATE stripe_increment SET closes_at = LEAST(closes_at, CAST(:now AS timestamptz))
WHERE client_id = :client_id AND customer_id = :was AND state = 'sending'
""")


def check_customer_id(value: object) -> str:
    """Return the id of a Stripe customer. Raises `InvalidValue`."""
    if not isinstance(value, str) or not _CUSTOMER_ID.fullmatch(value):
        raise InvalidValue("customer_id", value, "must be a Stripe customer, as cus_…, of at most 255 characters")
    return value


def link(connection: Connection, client_id: str, customer_id: str) -> bool:
    """Link a known client to a customer; return whether the link is new. Raises `Conflict` when either has another."""
    values = {"client_id": client_id, "customer_id": customer_id}
    made = insert_unless(stripe_customer).values(values).on_conflict_do_nothing().returning(stripe_customer.c.client_id)
    if connection.execute(made).one_or_none() is not None:
        return True
    has = customers_of(connection, [client_id]).get(client_id)
    if has == customer_id:
        return False
    if has is not None:
        rule = f"client {client_id!r} is linked to {has!r}, which stays (to move it: --replace)"
        raise Conflict(f"customer_id: {customer_id!r}: {rule}")
    raise _taken(connection, customer_id)


def move(connection: Connection, client_id: str, customer_id: str, *, reason: str, now: datetime) -> int | None:
    """Move a client's link to another customer, on record; return how many increments go with it.

    None: it has that customer already. What was sent stays with the old customer. Raises `InvalidValue` for a client
    without a link, and `Conflict` when the customer is another client's.
    """
    if not 1 <= len(reason.strip()) <= REASON_LENGTH_MAX or not reason.isprintable():
        raise InvalidValue("reason", reason, f"must be 1 to {REASON_LENGTH_MAX} printable characters")
    connection.execute(_AFTER_PLAN)
    locked = select(stripe_customer.c.customer_id).where(stripe_customer.c.client_id == client_id).with_for_update()
    was = connection.execute(locked).scalar_one_or_none()
    if was is None:
        raise InvalidValue("client_id", client_id, "has no link that could be replaced")
    if was == customer_id:
        return None
    # A customer of another client is waited for, as `link` does: then it is seen.
    free = ~select(stripe_customer.c.client_id).where(stripe_customer.c.customer_id == customer_id).exists()
    if not connection.execute(select(free)).scalar_one():
        raise _taken(connection, customer_id)
    changed = update(stripe_customer).where(stripe_customer.c.client_id == client_id)
    try:
        connection.execute(changed.values(customer_id=customer_id, linked_at=func.now()))
    except IntegrityError:
        # Somebody else has linked it at this moment.
        raise Conflict(f"customer_id: {customer_id!r}: is the customer of another client already") from None
    given = {"client_id": client_id, "was": was, "customer_id": customer_id}
    moved = connection.execute(_TO_REISSUE, {**given, "now": now}).rowcount
    connection.execute(_CLOSE_SENDING, {"client_id": client_id, "was": was, "now": now})
    connection.execute(insert(stripe_link_change).values(**given, reason=reason, increments=moved))
    return moved


def customers_of(connection: Connection, client_ids: Sequence[str]) -> dict[str, str]:
    """Return the customers of those of some clients that are linked."""
    found = select(stripe_customer.c.client_id, stripe_customer.c.customer_id).where(
        stripe_customer.c.client_id.in_(client_ids)
    )
    return {row.client_id: row.customer_id for row in connection.execute(found)}


def _taken(connection: Connection, customer_id: str) -> Conflict:
    other = select(stripe_customer.c.client_id).where(stripe_customer.c.customer_id == customer_id)
    owner = connection.execute(other).scalar_one_or_none()
    return Conflict(f"customer_id: {customer_id!r}: is the customer of client {owner!r} already")
