"""Writes the buckets of one closed and flushed shard at a new epoch, and opens it.

Everything is read and written under the shard's exclusive lock, which consumer batches hold shared. What moves
meanwhile (another server, one more asserted hold) is refused by the scripts, and the rebuild begins anew.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
from collections.abc import Iterable

from billing.connections import postgres
from billing.core.errors import Recovering, Retryable
from billing.credits.rebuilding import plan_bucket
from billing.credits.values import RebuildOutcome, StoredHold
from billing.ledger import locks, rebuilds
from billing.ledger.changes import enter_adjustment
from billing.recovery import facts
from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)


def write_shard(runtime: Runtime, shard: int) -> None:
    """Rebuild a shard from what PostgreSQL knows and what its holds claim. Raises `Retryable` to begin anew."""
    buckets = runtime.buckets
    _, server = buckets.server_of(shard)
    asserts = buckets.asserts_of(shard)
    with postgres.reaching(runtime.settings), runtime.engine.begin() as connection:
        locks.lock_shard_exclusive(connection, shard)
        began = facts.database_time(connection)
        clients = facts.begin_epoch(connection, shard, buckets.epochs, buckets.time_ms(), buckets.repaid)
        held = buckets.held(None, shard)
        logged = facts.logged_runs(connection, [hold.run_id for hold in held])
        for hold in held:
            if hold.run_id in logged:
                # The log has charged it. Left as a hold it would lend nothing, and the reaper would settle it again.
                buckets.mark_logged(hold.client_id, hold.run_id, logged[hold.run_id])
        holds = _by_client(hold for hold in held if hold.run_id not in logged)
        for found in clients:
            own = holds.get(found.client_id, [])
            claims = {hold.run_id: (hold.sku, hold.created_ms) for hold in own}
            known = None if found.known is None else dataclasses.replace(found.known, claims=claims)
            credits_ = [(hold.run_id, hold.credits) for hold in own]
            lent = {hold.run_id: hold.grants for hold in own}
            plan = plan_bucket(grants=found.grants, spent=found.spent, holds=credits_, lent=lent, known=known)
            outcome = buckets.rebuild(found.client_id, found.epoch, plan, server=server, asserts=asserts)
            if outcome is not RebuildOutcome.REBUILT:
                raise _again(shard, outcome.name)
            for change_id, _ in found.known.waiting if found.known else ():
                enter_adjustment(connection, found.client_id, change_id, plan.adjusted[change_id])
        facts.mark_grants_applied(connection, shard)
        rebuilds.answered(connection, shard, began)
    if not buckets.verify(shard, expected=server, asserts=asserts):
        raise _again(shard, RebuildOutcome.MOVED.name)
    kept = sum(map(len, holds.values()))
    logger.warning("billing: shard %d is open again: %d clients, %d holds", shard, len(clients), kept)


def _by_client(held: Iterable[StoredHold]) -> dict[str, list[StoredHold]]:
    holds: dict[str, list[StoredHold]] = collections.defaultdict(list)
    for hold in sorted(held, key=lambda hold: (hold.created_ms, hold.run_id)):
        holds[hold.client_id].append(hold)
    return holds


def _again(shard: int, reason: str) -> Retryable:
    return Recovering(f"rebuild of shard {shard}: {reason.lower()} meanwhile; it begins anew")
