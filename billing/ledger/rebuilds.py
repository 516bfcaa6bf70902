"""Requests to rebuild a shard: the slow, correct answer to every case in which bucket and log may disagree (L6).

A request is one row per shard; it is idempotent, and gone once a rebuild that began after it has committed.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from billing.schema.tables import shard_rebuild


def request_rebuild(connection: Connection, shard: int, reason: str) -> None:
    """Ask for a rebuild of a shard; the latest reason is kept."""
    row = {"shard": shard, "reason": reason, "requested_at": func.clock_timestamp()}
    statement = insert(shard_rebuild).values(row)
    connection.execute(statement.on_conflict_do_update(index_elements=[shard_rebuild.c.shard], set_=row))


def requested(connection: Connection) -> dict[int, str]:
    """Return the shards that wait for a rebuild, with the reason."""
    rows = connection.execute(select(shard_rebuild.c.shard, shard_rebuild.c.reason))
    return {row.shard: row.reason for row in rows}


def answered(connection: Connection, shard: int, since: datetime) -> None:
    """Drop a shard's request that was made before its rebuild began at `since` (the database's clock)."""
    connection.execute(
        delete(shard_rebuild).where(shard_rebuild.c.shard == shard, shard_rebuild.c.requested_at <= since)
    )
