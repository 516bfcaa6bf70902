"""Postings in PostgreSQL: per client, epoch and grant one absolute total of what the bucket is to be told.

A total is added to in the transaction of what causes it (a batch of the log, a repair), and its version rises. It is
brought into the bucket afterwards, by anybody, any number of times: the bucket knows versions. Totals of an epoch below
the client's are void: the rebuild that began the next one has read them in `grant_spent`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Final

from sqlalchemy import ARRAY, BigInteger, Connection, Integer, bindparam, text

from billing.credits.posting import GRANTS_MAX, Posting

#: Add to totals; a new one has version 1. In the order of the key, so that two writers do not wait in a circle.
ADD: Final = """
INSERT INTO posting AS total (client_id, epoch, grant_id, credits, restored, version)
SELECT client_id, epoch, grant_id, credits, restored, 1
FROM {added} AS added (client_id, epoch, grant_id, credits, restored)
ORDER BY client_id, epoch, grant_id
ON CONFLICT (client_id, epoch, grant_id) DO UPDATE
SET credits = total.credits + excluded.credits, restored = total.restored + excluded.restored,
    version = total.version + 1
"""

_ADD = text(
    ADD.format(
        added="(SELECT CAST(:client_id AS text), CAST(:epoch AS integer), one.* "
        "FROM unnest(:grants, :credits, :restored) AS one)"
    )
).bindparams(
    bindparam("grants", type_=ARRAY(BigInteger)),
    bindparam("credits", type_=ARRAY(BigInteger)),
    bindparam("restored", type_=ARRAY(BigInteger)),
)

#: The clients that are looked at, whether or not there is anything to tell them now.
_CLIENTS: Final = """
SELECT DISTINCT client_id, epoch FROM posting JOIN client USING (client_id, epoch)
WHERE applied_version < version AND client_id > :after
  AND (CAST(:shard AS integer) IS NULL OR shard = :shard)
  AND (CAST(:only AS text) IS NULL OR client_id = :only) ORDER BY client_id LIMIT :limit
"""

#: Those of the clients' own epoch that are not in their buckets, of as many clients; never a grant that is on its way.
_WAITING = text(f"""
SELECT waits.client_id, waits.epoch, grant_id, credits, restored, version, entered
FROM ({_CLIENTS}) AS waits
JOIN LATERAL (
    SELECT *, (SELECT coalesce(-sum(entry.credits), 0)::bigint FROM ledger_entry AS entry
               WHERE entry.grant_id = own.grant_id AND entry.kind IN ('expire', 'void')) AS entered
    FROM posting AS own
    WHERE own.client_id = waits.client_id AND own.epoch = waits.epoch AND own.applied_version < own.version
      AND NOT EXISTS (SELECT FROM credit_grant WHERE grant_id = own.grant_id AND applied_at IS NULL)
    ORDER BY grant_id LIMIT :grants
) AS own ON true
ORDER BY client_id, grant_id
""")  # noqa: S608 - text of our own

#: The last of the clients that are looked at, if there are as many: more may wait behind it.
_LAST_WAITING = text(f"SELECT client_id FROM ({_CLIENTS}) AS waits ORDER BY client_id OFFSET :limit - 1")  # noqa: S608

#: Whether something is posted to some of a client's grants that its bucket is not known to have.
_UNTOLD = text("""
SELECT EXISTS (SELECT FROM posting JOIN client USING (client_id, epoch)
               WHERE client_id = :client_id AND grant_id = ANY(:grants) AND applied_version < version)
""").bindparams(bindparam("grants", type_=ARRAY(BigInteger)))

_SHARDS_WAITING = text("""
SELECT DISTINCT shard FROM posting JOIN client USING (client_id, epoch) WHERE applied_version < version ORDER BY shard
""")

#: The grants of a shard to which something is posted that their buckets are not known to have.
_GRANTS_WAITING = text("""
SELECT client_id, grant_id FROM posting JOIN client USING (client_id, epoch)
WHERE shard = :shard AND applied_version < version
""")

_MARK = text("""
UPDATE posting SET applied_version = applied.version, refused = NULL
FROM unnest(:grants, :versions) AS applied (grant_id, version)
WHERE client_id = :client_id AND epoch = :epoch AND posting.grant_id = applied.grant_id
  AND applied_version < applied.version AND applied.version <= posting.version
""").bindparams(bindparam("grants", type_=ARRAY(BigInteger)), bindparam("versions", type_=ARRAY(Integer)))

_REFUSE = text("""
UPDATE posting SET refused = :reason
WHERE client_id = :client_id AND epoch = :epoch AND grant_id = ANY(:grants) AND applied_version < version
  AND refused IS DISTINCT FROM :reason
""").bindparams(bindparam("grants", type_=ARRAY(BigInteger)))

_REFUSED = text("""
SELECT client_id, grant_id, refused FROM posting JOIN client USING (client_id, epoch)
WHERE applied_version < version AND refused IS NOT NULL ORDER BY client_id, grant_id LIMIT :limit
""")

_FORGET = text("""
DELETE FROM posting USING (
    SELECT client_id, posting.epoch, grant_id FROM client JOIN posting USING (client_id)
    WHERE shard = :shard AND posting.epoch < client.epoch LIMIT :limit
) AS void
WHERE (posting.client_id, posting.epoch, posting.grant_id) = (void.client_id, void.epoch, void.grant_id)
""")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClientPostings:
    """What waits for one client's bucket of an epoch: the totals of its grants."""

    client_id: str
    epoch: int
    rows: tuple[Posting, ...]

    def __str__(self) -> str:
        return f"a posting to client {self.client_id}"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """What a bucket does not take, and why: it waits until a sum is smaller again, or a person acts."""

    client_id: str
    grant_id: int
    reason: str


def add(
    connection: Connection,
    client_id: str,
    epoch: int,
    grants: Mapping[int, int],
    restored: Mapping[int, int] | None = None,
) -> None:
    """Add to the totals of a client's grants at an epoch: credits to take (below 0: give back), and to restore.

    The caller holds the lock of the client's shard, shared, and has read the epoch under it.
    """
    put = restored or {}
    ids = sorted({grant for grant, part in [*grants.items(), *put.items()] if part})
    if ids:
        values = {
            "client_id": client_id,
            "epoch": epoch,
            "grants": ids,
            "credits": [grants.get(grant, 0) for grant in ids],
            "restored": [put.get(grant, 0) for grant in ids],
        }
        connection.execute(_ADD, values)


def shards_waiting(connection: Connection) -> list[int]:
    """Return the shards that have clients for whose buckets something waits."""
    return list(connection.execute(_SHARDS_WAITING).scalars())


def untold(connection: Connection, client_id: str, grants: Collection[int]) -> bool:
    """Return whether something is posted to some of a client's grants that its bucket is not known to have."""
    return bool(connection.execute(_UNTOLD, {"client_id": client_id, "grants": list(grants)}).scalar_one())


def waiting(
    connection: Connection, limit: int, *, after: str = "", shard: int | None = None, only: str | None = None
) -> list[ClientPostings]:
    """Return what waits of at most `limit` clients (of a shard; `only` one), in the order of their ids after `after`.

    A total of a grant that is not in its bucket yet waits for the grant.
    """
    found: dict[tuple[str, int], list[Posting]] = {}
    values = {"limit": limit, "after": after, "shard": shard, "only": only, "grants": GRANTS_MAX}
    for row in connection.execute(_WAITING, values):
        posting = Posting(
            grant_id=row.grant_id,
            version=row.version,
            credits=row.credits,
            restored=row.restored,
            entered=row.entered,
        )
        found.setdefault((row.client_id, row.epoch), []).append(posting)
    return [ClientPostings(client_id=client, epoch=epoch, rows=tuple(rows)) for (client, epoch), rows in found.items()]


def last_waiting(connection: Connection, limit: int, *, after: str, shard: int) -> str | None:
    """Return the last client that `waiting` looks at, told something or not; None if there are fewer than `limit`."""
    values = {"limit": limit, "after": after, "shard": shard, "only": None}
    return connection.execute(_LAST_WAITING, values).scalar_one_or_none()


def grants_waiting(connection: Connection, shard: int) -> set[tuple[str, int]]:
    """Return the (client, grant) pairs of a shard to which something is posted that a bucket may not have."""
    return {(row.client_id, row.grant_id) for row in connection.execute(_GRANTS_WAITING, {"shard": shard})}


def mark_applied(connection: Connection, applied: ClientPostings) -> None:
    """Note that the bucket has these versions. Idempotent; an older version than what is noted changes nothing."""
    values = {
        "client_id": applied.client_id,
        "epoch": applied.epoch,
        "grants": [row.grant_id for row in applied.rows],
        "versions": [row.version for row in applied.rows],
    }
    connection.execute(_MARK, values)


def mark_refused(connection: Connection, row: ClientPostings, reason: str) -> bool:
    """Note that the bucket does not take these; return whether that is new."""
    grants = [one.grant_id for one in row.rows]
    values = {"client_id": row.client_id, "epoch": row.epoch, "grants": grants, "reason": reason}
    return connection.execute(_REFUSE, values).rowcount > 0


def refused(connection: Connection, limit: int) -> list[Refused]:
    """Return at most `limit` postings that buckets do not take."""
    rows = connection.execute(_REFUSED, {"limit": limit})
    return [Refused(client_id=row.client_id, grant_id=row.grant_id, reason=row.refused) for row in rows]


def forget(connection: Connection, shard: int, limit: int) -> int:
    """Remove at most `limit` totals of a shard whose epochs are over; return how many. What is left does no harm."""
    return connection.execute(_FORGET, {"shard": shard, "limit": limit}).rowcount
