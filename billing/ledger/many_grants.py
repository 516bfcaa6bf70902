"""The same grant for many clients, in a few statements: the rules are those of `grants.py`, asked of all at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import ARRAY, BigInteger, Connection, Text, and_, any_, func, insert, literal, or_, select, update

from billing.core.credits import CREDITS_MAX, check_amount
from billing.core.errors import Conflict, InvalidValue, UnknownClient
from billing.core.limits import USABLE_GRANTS_MAX
from billing.ledger.grants import DEBT, GrantRow
from billing.ledger.keys import check_key
from billing.schema.tables import client, credit_grant, grant_spent, ledger_entry

_COLUMNS: Final = tuple(credit_grant.c)


def add_grants(connection: Connection, client_ids: Sequence[str], credits: int, key: str) -> list[GrantRow]:
    """Grant the same credits to each client under one key; return the grants, those that were there included.

    The caller bounds the number of clients. Raises `UnknownClient`, `InvalidValue`, and `Conflict` if a client's key
    was used for another amount; then nothing is granted to any of them.
    """
    amount, checked_key = check_amount("credits", credits), check_key(key)
    these = any_(literal(list(client_ids), ARRAY(Text)))
    # Locked in one order, so that two such calls do not wait for each other in a circle.
    locked = select(client.c.client_id, client.c.state).where(client.c.client_id == these).order_by(client.c.client_id)
    known = {row.client_id: row.state for row in connection.execute(locked.with_for_update(key_share=True))}
    for name in client_ids:
        if name not in known:
            raise UnknownClient(name)
        if known[name] == "closed":
            raise InvalidValue("client_id", name, "is closed: it is granted nothing (see: billing client resume)")
    same = select(*_COLUMNS).where(credit_grant.c.client_id == these, credit_grant.c.key == checked_key)
    found = [GrantRow(**row._mapping) for row in connection.execute(same)]  # noqa: SLF001 - SQLAlchemy's documented way
    for row in found:
        if row.credits != amount:
            message = (
                f"key: {checked_key!r}: was used for a grant of {row.credits} credits, so it cannot grant {amount}"
            )
            raise Conflict(message)
    new = sorted(known.keys() - {row.client_id for row in found})
    return found + _add(connection, new, amount, checked_key) if new else found


def mark_all_applied(connection: Connection, grant_ids: Iterable[int]) -> None:
    """Note that the buckets have these grants. Idempotent: the first time stays."""
    these = any_(literal(sorted(grant_ids), ARRAY(BigInteger)))
    waiting = and_(credit_grant.c.grant_id == these, credit_grant.c.applied_at.is_(None))
    connection.execute(update(credit_grant).where(waiting).values(applied_at=func.now()))


def _add(connection: Connection, client_ids: Sequence[str], amount: int, key: str) -> list[GrantRow]:
    _check_rules(connection, client_ids, amount)
    values = [{"client_id": name, "credits": amount, "key": key} for name in client_ids]
    made = connection.execute(insert(credit_grant).returning(*_COLUMNS), values)
    rows = [GrantRow(**row._mapping) for row in made]  # noqa: SLF001 - SQLAlchemy's documented way to a row's mapping
    entries = [
        {"client_id": row.client_id, "grant_id": row.grant_id, "kind": "grant", "credits": amount, "reason": ""}
        for row in rows
    ]
    connection.execute(insert(ledger_entry), entries)
    return rows


def _check_rules(connection: Connection, client_ids: Sequence[str], amount: int) -> None:
    """Refuse a grant past those that a bucket holds, and one whose sum it could never take."""
    these = any_(literal(list(client_ids), ARRAY(Text)))
    spent = and_(grant_spent.c.client_id == credit_grant.c.client_id, grant_spent.c.grant_id == credit_grant.c.grant_id)
    usable = and_(
        credit_grant.c.credits > func.coalesce(grant_spent.c.credits, 0),
        credit_grant.c.voided_at.is_(None),
        or_(credit_grant.c.expires_at.is_(None), credit_grant.c.expires_at > func.clock_timestamp()),
    )
    granted = (
        select(credit_grant.c.client_id, func.count().filter(usable), func.sum(credit_grant.c.credits))
        .select_from(credit_grant.outerjoin(grant_spent, spent))
        .where(credit_grant.c.client_id == these)
        .group_by(credit_grant.c.client_id)
    )
    owed = select(grant_spent.c.client_id, grant_spent.c.credits).where(
        grant_spent.c.client_id == these, grant_spent.c.grant_id == DEBT
    )
    debts = {row.client_id: row.credits for row in connection.execute(owed)}
    for name, count, total in connection.execute(granted):
        if count >= USABLE_GRANTS_MAX:
            rule = f"has {count} grants with credits left; a client holds at most {USABLE_GRANTS_MAX} at a time"
            raise InvalidValue("client_id", name, rule)
        left = CREDITS_MAX - int(total) - debts.get(name, 0)
        if amount > left:
            rule = f"must be at most {left} for client {name!r}: all that it was granted stays within {CREDITS_MAX}"
            raise InvalidValue("credits", amount, rule)
