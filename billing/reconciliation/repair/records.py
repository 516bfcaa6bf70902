"""Writes repairs: what was posted to a bucket and why, in the transaction that posts it; a row never changes (L7)."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, func, insert, select, text

from billing.ledger import locks, postings
from billing.ledger.rebuilds import request_rebuild
from billing.reconciliation.repair.corrections import Correction
from billing.schema.advisory import Guard
from billing.schema.operations import repair
from billing.schema.tables import client

POSTED, REBUILD = "posted", "rebuild"

_NOT_APPLIED: Final = text("""
SELECT EXISTS (SELECT FROM posting JOIN client USING (client_id, epoch)
               WHERE client_id = :client_id AND applied_version < version)
""")


def try_repair(connection: Connection) -> bool:
    """Return whether this transaction is now the one that repairs: what it compares, no other repair moves."""
    lock = select(func.pg_try_advisory_xact_lock(Guard.REPAIR, 0))
    return bool(connection.execute(lock).scalar_one())


def write(connection: Connection, run_id: int, made: Correction, made_by: str) -> bool:
    """Post a correction, or ask for the rebuild, and record it; return False if a rebuild came first."""
    locks.lock_shards_shared(connection, [made.shard])
    epoch = connection.execute(select(client.c.epoch).where(client.c.client_id == made.client_id)).scalar_one()
    if epoch != made.epoch:
        return False
    of_client = {"run_id": run_id, "client_id": made.client_id, "epoch": made.epoch, "made_by": made_by}
    rows: list[dict[str, Any]]
    if made.rebuild is not None:
        request_rebuild(connection, made.shard, f"repair of client {made.client_id}: {made.rebuild}")
        rows = [{"action": REBUILD, "grant_id": None, "credits": 0, "restored": 0, "found": {"found": made.rebuild}}]
    else:
        postings.add(
            connection,
            made.client_id,
            made.epoch,
            {one.grant_id: one.credits for one in made.postings},
            restored={one.grant_id: one.restored for one in made.postings},
        )
        rows = [
            {
                "action": POSTED,
                "grant_id": one.grant_id,
                "credits": one.credits,
                "restored": one.restored,
                "found": {**one.found, "at_ms": made.at_ms},
            }
            for one in made.postings
        ]
    connection.execute(insert(repair), [of_client | row for row in rows])
    return True


def is_applied(connection: Connection, client_id: str) -> bool:
    """Return whether a bucket has all that is posted to it."""
    return not connection.execute(_NOT_APPLIED, {"client_id": client_id}).scalar_one()
