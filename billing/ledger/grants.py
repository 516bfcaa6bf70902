"""Grants in PostgreSQL, where they are before they are in Redis: the bucket is filled from here, and rebuilt from here.

A grant and its ledger entry are one transaction. `key` makes it idempotent: the same key with the same credits is
the same grant, with other credits a `Conflict`. `applied_at` is null until the bucket has it, so that a grant whose
caller died half way is found and applied by anybody (`unapplied`); applying is idempotent by the grant's id.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, and_, func, insert, select, text, update

from billing.core.credits import check_amount
from billing.core.errors import Conflict, InvalidValue
from billing.core.limits import UNAPPLIED_OF_ONE_CLIENT_MAX
from billing.credits.terms import GrantTerms
from billing.ledger import bounds
from billing.ledger.bounds import UsedUp, nobody_asked
from billing.ledger.changes import lock_client, refuse_changes
from billing.ledger.grant_terms import ORDINARY, Terms, bucket_terms, check_in_future
from billing.ledger.keys import check_key
from billing.schema.tables import client, credit_grant, ledger_entry

#: In burn order: priority, then expiry, then creation; what never expires burns last. A shard is a small part of the
#: fleet: `OFFSET 0` makes PostgreSQL look each client up, where it would read the whole table for every shard.
_OF_SHARD: Final = text("""
SELECT own.client_id, grant_id, credits
FROM client, LATERAL (SELECT * FROM credit_grant WHERE client_id = client.client_id OFFSET 0) AS own
WHERE shard = :shard ORDER BY priority, expires_at NULLS LAST, grant_id
""")

_SPENT_OF_SHARD: Final = text("""
SELECT own.client_id, grant_id, credits
FROM client, LATERAL (SELECT * FROM grant_spent WHERE client_id = client.client_id OFFSET 0) AS own
WHERE shard = :shard
""")


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
    skus: Sequence[str] = ()
    voided_at: datetime | None = None

    @property
    def terms(self) -> Terms:
        """What was agreed of the grant besides its credits."""
        return Terms(kind=self.kind, priority=self.priority, expires_at=self.expires_at, skus=tuple(self.skus))

    def for_bucket(self) -> GrantTerms:
        """Return the terms as a bucket takes them; a void has a step of its own."""
        return bucket_terms(priority=self.priority, expires_at=self.expires_at, skus=self.skus, voided_at=None)


def add_grant(
    connection: Connection,
    client_id: object,
    credits: object,
    key: object = None,
    *,
    reason: str = "",
    terms: Terms = ORDINARY,
    used_up: UsedUp = nobody_asked,
) -> tuple[GrantRow, bool]:
    """Grant credits to a client, and return the grant with whether it is new. `terms` are checked ones.

    `used_up` tells which grants the client's bucket has used up; it is asked where the ledger counts too many.
    Raises `InvalidValue`, `UnknownClient`, or `Conflict` if the key was used for another amount or other terms.
    """
    amount = check_amount("credits", credits)
    checked_key = None if key is None else check_key(key)
    checked_id = lock_client(connection, client_id)
    if checked_key is not None:
        found = grant_of_key(connection, checked_id, checked_key)
        if found is not None:
            return same_grant(found, amount, terms), False
        refuse_changes(connection, [checked_id], checked_key, f"a grant of {amount} credits")
    check_open(connection, checked_id)
    check_in_future(terms.expires_at, connection.execute(select(func.clock_timestamp())).scalar_one())
    bounds.check_grant(connection, [checked_id], amount, terms, used_up)
    values = {
        "client_id": checked_id,
        "credits": amount,
        "key": checked_key,
        "kind": terms.kind,
        "priority": terms.priority,
        "expires_at": terms.expires_at,
        "skus": list(terms.skus),
    }
    made = _grant(connection.execute(insert(credit_grant).values(values).returning(*credit_grant.c)).one())
    entry = {"client_id": checked_id, "grant_id": made.grant_id, "kind": "grant", "credits": amount, "reason": reason}
    connection.execute(insert(ledger_entry).values(entry))
    return made, True


def unapplied(connection: Connection, limit: int) -> Sequence[GrantRow]:
    """Return at most `limit` grants that the buckets do not have yet, oldest first, of one client but a few (L10)."""
    place = (
        func.row_number().over(partition_by=credit_grant.c.client_id, order_by=credit_grant.c.grant_id).label("place")
    )
    ranked = select(credit_grant.c.grant_id, place).where(credit_grant.c.applied_at.is_(None)).subquery()
    ids = select(ranked.c.grant_id).where(ranked.c.place <= UNAPPLIED_OF_ONE_CLIENT_MAX)
    waiting = (
        select(credit_grant).where(credit_grant.c.grant_id.in_(ids)).order_by(credit_grant.c.grant_id).limit(limit)
    )
    return [_grant(row) for row in connection.execute(waiting)]


def mark_applied(connection: Connection, grant_id: int) -> None:
    """Note that the bucket has the grant. Idempotent: the first time stays."""
    waiting = and_(credit_grant.c.grant_id == grant_id, credit_grant.c.applied_at.is_(None))
    connection.execute(update(credit_grant).where(waiting).values(applied_at=func.now()))


def grants_of_shard(connection: Connection, shard: int) -> dict[str, list[tuple[int, int]]]:
    """Return (grant id, credits) of each client of a shard that has grants, in burn order."""
    grants: dict[str, list[tuple[int, int]]] = collections.defaultdict(list)
    # All at once and unpacked, here and below: a shard may have hundreds of thousands.
    for client_id, grant_id, credits_ in connection.execute(_OF_SHARD, {"shard": shard}).all():
        grants[client_id].append((grant_id, credits_))
    return grants


def spent_of_shard(connection: Connection, shard: int) -> dict[str, dict[int, int]]:
    """Return what the log says each grant of each client of a shard has paid; 0 is debt: nothing had covered it."""
    spent: dict[str, dict[int, int]] = collections.defaultdict(dict)
    for client_id, grant_id, credits_ in connection.execute(_SPENT_OF_SHARD, {"shard": shard}).all():
        spent[client_id][grant_id] = credits_
    return spent


def grant_of_key(connection: Connection, client_id: str, key: str) -> GrantRow | None:
    """Return the grant that a client's key made before, if any."""
    same = and_(credit_grant.c.client_id == client_id, credit_grant.c.key == key)
    found = connection.execute(select(credit_grant).where(same)).one_or_none()
    return None if found is None else _grant(found)


def same_grant(found: GrantRow, amount: int, terms: Terms) -> GrantRow:
    """Return the grant that a key made before; raises `Conflict` if it was another one than is asked for."""
    if found.credits != amount:
        message = f"key: {found.key!r}: was used for a grant of {found.credits} credits, so it cannot grant {amount}"
        raise Conflict(message)
    if found.terms != terms:
        raise Conflict(f"key: {found.key!r}: was used for a grant with {found.terms}, so it cannot grant with {terms}")
    return found


def check_open(connection: Connection, client_id: str) -> None:
    """Raise `InvalidValue` for a client that is closed."""
    state = connection.execute(select(client.c.state).where(client.c.client_id == client_id)).scalar_one()
    if state == "closed":
        raise InvalidValue("client_id", client_id, "is closed: it is granted nothing (see: billing client resume)")


def _grant(row: Row[*tuple[Any, ...]]) -> GrantRow:
    return GrantRow(**row._mapping)  # noqa: SLF001 - SQLAlchemy's documented way to a row's mapping
