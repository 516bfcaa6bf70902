"""The same grant for many clients, in a few statements: the rules are those of `grants.py`, asked of all at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import ARRAY, BigInteger, Connection, Text, and_, any_, func, insert, literal, select, update

from billing.core.credits import check_amount
from billing.core.errors import InvalidValue, UnknownClient
from billing.ledger.bounds import UsedUp, check_grant, nobody_asked
from billing.ledger.changes import refuse_changes
from billing.ledger.grant_terms import ORDINARY
from billing.ledger.grants import GrantRow, same_grant
from billing.ledger.keys import check_key
from billing.schema.tables import client, credit_grant, ledger_entry

_COLUMNS: Final = tuple(credit_grant.c)


def add_grants(
    connection: Connection, client_ids: Sequence[str], credits: int, key: str, used_up: UsedUp = nobody_asked
) -> list[GrantRow]:
    """Grant the same credits to each client under one key; return the grants, those that were there included.

    The caller bounds the number of clients. `used_up` is as in `add_grant`. Raises `UnknownClient`, `InvalidValue`, and
    `Conflict` if a client's key was used for anything else; then nothing is granted to any of them.
    """
    amount, checked_key = check_amount("credits", credits), check_key(key)
    these = any_(literal(list(client_ids), ARRAY(Text)))
    # Locked in one order, so that two such calls do not wait for each other in a circle.
    locked = select(client.c.client_id, client.c.state).where(client.c.client_id == these).order_by(client.c.client_id)
    known = {row.client_id: row.state for row in connection.execute(locked.with_for_update(key_share=True))}
    for name in client_ids:
        if name not in known:
            raise UnknownClient(name)
    same = select(*_COLUMNS).where(credit_grant.c.client_id == these, credit_grant.c.key == checked_key)
    found = [GrantRow(**row._mapping) for row in connection.execute(same)]  # noqa: SLF001 - SQLAlchemy's documented way
    for row in found:
        same_grant(row, amount, ORDINARY)
    new = sorted(known.keys() - {row.client_id for row in found})
    if not new:
        return found
    refuse_changes(connection, new, checked_key, f"a grant of {amount} credits")
    for name in new:
        if known[name] == "closed":
            raise InvalidValue("client_id", name, "is closed: it is granted nothing (see: billing client resume)")
    check_grant(connection, new, amount, ORDINARY, used_up)
    return found + _add(connection, new, amount, checked_key)


def mark_all_applied(connection: Connection, grant_ids: Iterable[int]) -> None:
    """Note that the buckets have these grants. Idempotent: the first time stays."""
    these = any_(literal(sorted(grant_ids), ARRAY(BigInteger)))
    waiting = and_(credit_grant.c.grant_id == these, credit_grant.c.applied_at.is_(None))
    connection.execute(update(credit_grant).where(waiting).values(applied_at=func.now()))


def _add(connection: Connection, client_ids: Sequence[str], amount: int, key: str) -> list[GrantRow]:
    values = [{"client_id": name, "credits": amount, "key": key} for name in client_ids]
    made = connection.execute(insert(credit_grant).returning(*_COLUMNS), values)
    rows = [GrantRow(**row._mapping) for row in made]  # noqa: SLF001 - SQLAlchemy's documented way to a row's mapping
    entries = [
        {"client_id": row.client_id, "grant_id": row.grant_id, "kind": "grant", "credits": amount, "reason": ""}
        for row in rows
    ]
    connection.execute(insert(ledger_entry), entries)
    return rows
