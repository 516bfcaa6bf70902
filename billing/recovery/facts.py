"""What PostgreSQL knows of a shard, read for a rebuild in one transaction under the shard's exclusive lock."""

from __future__ import annotations

import collections
import dataclasses
import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, func, nulls_last, select, update

from billing.schema.tables import client, credit_grant, grant_spent, recovery_marker, usage_history


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClientFacts:
    """A client at its new epoch: grants in burn order with their credits, and what the log says each has paid."""

    client_id: str
    epoch: int
    grants: tuple[tuple[int, int], ...]
    spent: dict[int, int]


def shards_with_clients(connection: Connection) -> set[int]:
    """Return the shards that have something to lose."""
    return set(connection.execute(select(client.c.shard).distinct()).scalars())


def database_time(connection: Connection) -> datetime:
    """Return the database's clock, by which requests for a rebuild are stamped."""
    now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return now


def begin_epoch(connection: Connection, shard: int) -> list[ClientFacts]:
    """Raise the epoch of every client of a shard, and read what its bucket is made of."""
    epochs = connection.execute(
        update(client)
        .where(client.c.shard == shard)
        .values(epoch=client.c.epoch + 1)
        .returning(client.c.client_id, client.c.epoch)
    ).all()
    of_shard = select(client.c.client_id).where(client.c.shard == shard)
    grants: dict[str, list[tuple[int, int]]] = collections.defaultdict(list)
    # Burn order: priority, then expiry, then creation.
    burn_order = (credit_grant.c.priority, nulls_last(credit_grant.c.expires_at.asc()), credit_grant.c.grant_id)
    for row in connection.execute(
        select(credit_grant.c.client_id, credit_grant.c.grant_id, credit_grant.c.credits)
        .where(credit_grant.c.client_id.in_(of_shard))
        .order_by(*burn_order)
    ):
        grants[row.client_id].append((row.grant_id, row.credits))
    spent: dict[str, dict[int, int]] = collections.defaultdict(dict)
    for row in connection.execute(
        select(grant_spent.c.client_id, grant_spent.c.grant_id, grant_spent.c.credits).where(
            grant_spent.c.client_id.in_(of_shard)
        )
    ):
        spent[row.client_id][row.grant_id] = row.credits
    return [
        ClientFacts(
            client_id=row.client_id,
            epoch=row.epoch,
            grants=tuple(grants.get(row.client_id, ())),
            spent=spent.get(row.client_id, {}),
        )
        for row in epochs
    ]


def mark_grants_applied(connection: Connection, shard: int) -> None:
    """Say of every grant of a shard that its bucket has it: the rebuild wrote it there."""
    of_shard = select(client.c.client_id).where(client.c.shard == shard)
    connection.execute(
        update(credit_grant)
        .where(credit_grant.c.client_id.in_(of_shard), credit_grant.c.applied_at.is_(None))
        .values(applied_at=func.now())
    )


def logged_runs(connection: Connection, run_ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Return which of some runs are in the usage history: they are charged, and hold nothing any more."""
    if not run_ids:
        return set()
    query = select(usage_history.c.run_id).where(usage_history.c.run_id.in_(run_ids)).distinct()
    return set(connection.execute(query).scalars())


def marker_committed(connection: Connection, token: uuid.UUID) -> bool:
    """Return whether the consumer has committed a marker, and so everything that its queue carried before it."""
    query = select(recovery_marker.c.token).where(recovery_marker.c.token == token)
    return connection.execute(query).first() is not None
