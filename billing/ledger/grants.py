"""Grants in PostgreSQL, where they are before they are in Redis: the bucket is filled from here, and rebuilt from here.

A grant and its ledger entry are one transaction. `key` makes it idempotent: the same key with the same credits is
the same grant, with other credits a `Conflict`. `applied_at` is null until the bucket has it, so that a grant whose
caller died half way is found and applied by anybody (`unapplied`); applying is idempotent by the grant's id.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, and_, func, insert, select, update

from billing.catalog.clients import get_client
from billing.core.credits import check_amount
from billing.core.errors import Conflict, InvalidValue, UnknownClient
from billing.core.identifiers import check_client_id
from billing.schema.tables import client, credit_grant, grant_spent, ledger_entry

#: L9: usable grants that one bucket holds at most.
USABLE_GRANTS_MAX: Final = 64
_KEY_LENGTH_MAX: Final = 255


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class GrantRow:
    """An allotment of credits. `applied_at` is None until the bucket in Redis has it."""

    grant_id: int
    client_id: str
    kind: str
    credits: int
    priority: int
    expires_at: datetime | None
    key: str | None
    created_at: datetime
    applied_at: datetime | None


def add_grant(
    connection: Connection, client_id: object, credits: object, key: object = None, *, reason: str = ""
) -> tuple[GrantRow, bool]:
    """Grant credits to a client, and return the grant with whether it is new.

    Raises `InvalidValue`, `UnknownClient`, or `Conflict` if the key was used for another amount.
    """
    checked_id = check_client_id(client_id)
    amount = check_amount("credits", credits)
    checked_key = None if key is None else _check_key(key)
    # The client's row is locked, so that two grants of one client see each other.
    locked = select(client.c.client_id).where(client.c.client_id == checked_id).with_for_update(key_share=True)
    if connection.execute(locked).one_or_none() is None:
        raise UnknownClient(checked_id)
    if checked_key is not None:
        same = and_(credit_grant.c.client_id == checked_id, credit_grant.c.key == checked_key)
        found = connection.execute(select(credit_grant).where(same)).one_or_none()
        if found is not None:
            return _same(_grant(found), amount), False
    _check_room(connection, checked_id)
    values = {"client_id": checked_id, "credits": amount, "key": checked_key}
    made = _grant(connection.execute(insert(credit_grant).values(values).returning(*credit_grant.c)).one())
    entry = {"client_id": checked_id, "grant_id": made.grant_id, "kind": "grant", "credits": amount, "reason": reason}
    connection.execute(insert(ledger_entry).values(entry))
    return made, True


def unapplied(connection: Connection, limit: int) -> Sequence[GrantRow]:
    """Return at most `limit` grants that the buckets do not have yet, oldest first."""
    waiting = select(credit_grant).where(credit_grant.c.applied_at.is_(None)).order_by(credit_grant.c.grant_id)
    return [_grant(row) for row in connection.execute(waiting.limit(limit))]


def mark_applied(connection: Connection, grant_id: int) -> None:
    """Note that the bucket has the grant. Idempotent: the first time stays."""
    waiting = and_(credit_grant.c.grant_id == grant_id, credit_grant.c.applied_at.is_(None))
    connection.execute(update(credit_grant).where(waiting).values(applied_at=func.now()))


def grants_of(connection: Connection, client_id: str) -> Sequence[GrantRow]:
    """Return a client's grants in burn order: priority, then expiry, then creation."""
    order = (credit_grant.c.priority, credit_grant.c.expires_at.asc().nulls_last(), credit_grant.c.grant_id)
    mine = select(credit_grant).where(credit_grant.c.client_id == client_id)
    return [_grant(row) for row in connection.execute(mine.order_by(*order))]


def spent_by_grant(connection: Connection, client_id: str) -> dict[int, int]:
    """Return what each grant of a client has paid, says the log; 0 is debt: nothing covered it when it was settled."""
    mine = select(grant_spent.c.grant_id, grant_spent.c.credits).where(grant_spent.c.client_id == client_id)
    return {row.grant_id: row.credits for row in connection.execute(mine)}


def granted_total(connection: Connection, client_id: str) -> int:
    """Return the sum of a client's grants. Raises `UnknownClient`."""
    get_client(connection, client_id)
    total = select(func.coalesce(func.sum(credit_grant.c.credits), 0)).where(credit_grant.c.client_id == client_id)
    return int(connection.execute(total).scalar_one())


def _same(found: GrantRow, amount: int) -> GrantRow:
    if found.credits != amount:
        message = f"key: {found.key!r}: was used for a grant of {found.credits} credits, so it cannot grant {amount}"
        raise Conflict(message)
    return found


def _check_room(connection: Connection, client_id: str) -> None:
    """Refuse a grant past the usable ones that a bucket holds. The log lags, so it counts rather too many as usable."""
    spent = and_(grant_spent.c.client_id == credit_grant.c.client_id, grant_spent.c.grant_id == credit_grant.c.grant_id)
    usable = (
        select(func.count())
        .select_from(credit_grant.outerjoin(grant_spent, spent))
        .where(credit_grant.c.client_id == client_id)
        .where(credit_grant.c.credits > func.coalesce(grant_spent.c.credits, 0))
    )
    count = connection.execute(usable).scalar_one()
    if count >= USABLE_GRANTS_MAX:
        rule = f"has {count} grants with credits left; a client holds at most {USABLE_GRANTS_MAX} at a time"
        raise InvalidValue("client_id", client_id, rule)


def _check_key(key: object) -> str:
    if not isinstance(key, str) or not 1 <= len(key) <= _KEY_LENGTH_MAX or not key.isprintable():
        raise InvalidValue("key", key, f"must be 1 to {_KEY_LENGTH_MAX} printable characters")
    return key


def _grant(row: Row[*tuple[Any, ...]]) -> GrantRow:
    return GrantRow(**row._mapping)  # noqa: SLF001 - SQLAlchemy's documented way to a row's mapping
