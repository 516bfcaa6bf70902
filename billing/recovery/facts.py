"""What PostgreSQL knows of a shard, read for a rebuild in one transaction under the shard's exclusive lock."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import ARRAY, Connection, Integer, Text, Uuid, any_, bindparam, func, literal, select, text, update

from billing.credits.plan import LedgerTerms
from billing.ledger.grants import grants_of_shard, spent_of_shard
from billing.ledger.known import known_of_shard
from billing.schema.ever import usage_ever
from billing.schema.tables import client, client_change, credit_grant, recovery_marker

#: Runs that one statement asks for (L9).
_SLICE: Final = 5_000

_RAISE: Final = text("""
UPDATE client SET epoch = ahead.epoch FROM unnest(:clients, :epochs) AS ahead (client_id, epoch)
WHERE client.client_id = ahead.client_id
""").bindparams(bindparam("clients", type_=ARRAY(Text)), bindparam("epochs", type_=ARRAY(Integer)))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClientFacts:
    """A client at its new epoch: grants in burn order with their credits, and what the log says each has paid.

    `known` is what the ledger says besides; None where all terms are ordinary.
    """

    client_id: str
    epoch: int
    grants: tuple[tuple[int, int], ...]
    spent: dict[int, int]
    known: LedgerTerms | None = None


def shards_with_clients(connection: Connection) -> set[int]:
    """Return the shards that have something to lose."""
    return set(connection.execute(select(client.c.shard).distinct()).scalars())


def database_time(connection: Connection) -> datetime:
    """Return the database's clock, by which requests for a rebuild are stamped."""
    now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return now


def begin_epoch(
    connection: Connection,
    shard: int,
    bucket_epochs: Callable[[Sequence[str]], Mapping[str, int]],
    now_ms: int = 0,
    bucket_repaid: Callable[[Mapping[str, Sequence[int]]], Mapping[str, Mapping[int, int]]] | None = None,
) -> list[ClientFacts]:
    """Raise the epoch of every client of a shard, and read what its bucket is made of.

    The new epoch is above the one that `bucket_epochs` tells of each client's bucket, too: a PostgreSQL that was
    restored to an older state would else write buckets which are refused as stale, for ever. `now_ms` is Redis' clock,
    by which grants end. `bucket_repaid` tells who repaid debt, of those clients that ever had some, as far as their
    buckets are still there.
    """
    _raise_to_buckets(connection, shard, bucket_epochs)
    epochs = connection.execute(
        update(client)
        .where(client.c.shard == shard)
        .values(epoch=client.c.epoch + 1)
        .returning(client.c.client_id, client.c.epoch)
    ).all()
    grants, spent = grants_of_shard(connection, shard), spent_of_shard(connection, shard)
    known = known_of_shard(connection, shard, now_ms)
    found = [
        ClientFacts(
            client_id=client_id,
            epoch=epoch,
            grants=tuple(grants.get(client_id, ())),
            spent=spent.get(client_id, {}),
            known=known.get(client_id),
        )
        for client_id, epoch in epochs
    ]
    return found if bucket_repaid is None else _with_repaid(found, bucket_repaid)


def _with_repaid(
    clients: Sequence[ClientFacts],
    bucket_repaid: Callable[[Mapping[str, Sequence[int]]], Mapping[str, Mapping[int, int]]],
) -> list[ClientFacts]:
    repaid = bucket_repaid({one.client_id: [grant for grant, _ in one.grants] for one in clients if _owed(one)})
    return [
        dataclasses.replace(one, known=dataclasses.replace(one.known or LedgerTerms(), repaid=repaid[one.client_id]))
        if repaid.get(one.client_id)
        else one
        for one in clients
    ]


def _owed(found: ClientFacts) -> bool:
    """Whether a client may ever have had debt."""
    paid = sum(min(credits_, found.spent.get(grant, 0)) for grant, credits_ in found.grants)
    known = found.known
    return sum(found.spent.values()) > paid or (known is not None and bool(known.adjustments or known.final))


def _raise_to_buckets(
    connection: Connection, shard: int, bucket_epochs: Callable[[Sequence[str]], Mapping[str, int]]
) -> None:
    known = epochs_of_shard(connection, shard)
    found = bucket_epochs(list(known))
    ahead = {client_id: found[client_id] for client_id, epoch in known.items() if found[client_id] > epoch}
    if ahead:
        connection.execute(_RAISE, {"clients": list(ahead), "epochs": list(ahead.values())})


def epochs_of_shard(connection: Connection, shard: int) -> dict[str, int]:
    """Return the epoch of each client of a shard."""
    rows = connection.execute(select(client.c.client_id, client.c.epoch).where(client.c.shard == shard))
    # All at once and unpacked: a shard has thousands, and to fetch each by itself, and its columns by name, is slow.
    return dict(rows.all())


def mark_grants_applied(connection: Connection, shard: int) -> None:
    """Say of every grant, and change, of a shard that its bucket has it: the rebuild wrote it there."""
    of_shard = select(client.c.client_id).where(client.c.shard == shard)
    connection.execute(
        update(client_change)
        .where(client_change.c.client_id.in_(of_shard), client_change.c.applied_at.is_(None))
        .values(applied_at=func.now())
    )
    connection.execute(
        update(credit_grant)
        .where(credit_grant.c.client_id.in_(of_shard), credit_grant.c.applied_at.is_(None))
        .values(applied_at=func.now())
    )


def logged_runs(connection: Connection, run_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, str]:
    """Return the settlement of those runs that were ever charged: they hold nothing any more.

    The ids go as one array a slice, since a statement takes 65,535 parameters and a shard may have more holds.
    """
    run_id = usage_ever.c.run_id
    logged: dict[uuid.UUID, str] = {}
    for start in range(0, len(run_ids), _SLICE):
        part = literal(list(run_ids[start : start + _SLICE]), ARRAY(Uuid))
        settlement = func.min(usage_ever.c.settlement_id).label("settlement")
        query = select(run_id, settlement).where(run_id == any_(part)).group_by(run_id)
        logged.update({row.run_id: row.settlement for row in connection.execute(query)})
    return logged


def marker_committed(connection: Connection, token: uuid.UUID) -> bool:
    """Return whether the consumer has committed a marker, and so everything that its queue carried before it."""
    query = select(recovery_marker.c.token).where(recovery_marker.c.token == token)
    return connection.execute(query).first() is not None
