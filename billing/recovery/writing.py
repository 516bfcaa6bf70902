"""Writes the buckets of one closed and flushed shard at a new epoch, and opens it.

Everything is read in one transaction under the shard's exclusive lock, which consumer batches hold shared: it commits
the new epoch, so that no two rebuilders ever write at the same one, and none is begun on a shard that is open again.
Buckets are opened under the lock too, if PostgreSQL is still at their epoch: whoever paused, or lost its session, opens
nothing. What moves meanwhile (another server, one more asserted hold) is refused by the scripts, and the rebuild begins
anew.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection

from billing.connections import postgres
from billing.core.errors import Recovering, Retryable
from billing.credits.plan import BucketPlan
from billing.credits.rebuilding import plan_bucket
from billing.credits.values import RebuildOutcome, StoredHold
from billing.ledger import locks, postings, rebuilds
from billing.ledger.changes import enter_adjustment
from billing.recovery import facts
from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: Postings of older epochs that one rebuild removes (L9).
FORGOTTEN_MAX: Final = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Planned:
    """A bucket as it is to be written."""

    client_id: str
    epoch: int
    plan: BucketPlan


def write_shard(runtime: Runtime, shard: int) -> None:
    """Rebuild a shard from what PostgreSQL knows and what its holds claim. Raises `Retryable` to begin anew."""
    buckets = runtime.buckets
    with postgres.reaching(runtime.settings), runtime.engine.begin() as connection:
        locks.lock_shard_exclusive(connection, shard)
        verified, server = buckets.server_of(shard)
        if verified == server:
            # Somebody else has opened it since it was closed: a new epoch would leave its buckets behind.
            raise _again(shard, RebuildOutcome.OPEN.name)
        asserts = buckets.asserts_of(shard)
        planned = _plan(runtime, connection, shard)
    plans = ((one.client_id, one.epoch, one.plan) for one in planned)
    outcome = buckets.rebuild_all(plans, server=server, asserts=asserts)
    if outcome is not RebuildOutcome.REBUILT:
        raise _again(shard, outcome.name)
    with postgres.reaching(runtime.settings), runtime.engine.begin() as connection:
        locks.lock_shard_exclusive(connection, shard)
        epochs = facts.epochs_of_shard(connection, shard)
        if any(epochs.get(one.client_id) != one.epoch for one in planned):
            raise _again(shard, RebuildOutcome.STALE.name)
        if not buckets.verify(shard, expected=server, asserts=asserts):
            raise _again(shard, RebuildOutcome.MOVED.name)
        postings.forget(connection, shard, FORGOTTEN_MAX)
    if runtime.observer is not None:
        runtime.observer.rebuilt(len(planned))
    kept = sum(len(one.plan.holds) for one in planned)
    logger.warning("billing: shard %d is open again: %d clients, %d holds", shard, len(planned), kept)


def _plan(runtime: Runtime, connection: Connection, shard: int) -> list[_Planned]:
    """Begin an epoch and plan every bucket; what the plans bring into the buckets is entered as done.

    Whoever dies before the buckets are written leaves a closed shard: the next rebuild reads all of it again.
    """
    buckets = runtime.buckets
    began = facts.database_time(connection)
    clients = facts.begin_epoch(connection, shard, buckets.epochs, buckets.time_ms(), buckets.repaid)
    held = buckets.held(None, shard)
    logged = facts.logged_runs(connection, [hold.run_id for hold in held])
    # The log has charged them. Left as holds they would lend nothing, and the reaper would settle them again.
    charged = [hold for hold in held if hold.run_id in logged]
    buckets.mark_all_logged([(hold.client_id, hold.run_id, logged[hold.run_id]) for hold in charged])
    holds = _by_client(hold for hold in held if hold.run_id not in logged)
    planned = []
    for found in clients:
        own = holds.get(found.client_id, [])
        claims = {hold.run_id: (hold.sku, hold.created_ms) for hold in own}
        known = None if found.known is None else dataclasses.replace(found.known, claims=claims)
        credits_ = [(hold.run_id, hold.credits) for hold in own]
        lent = {hold.run_id: hold.grants for hold in own}
        plan = plan_bucket(grants=found.grants, spent=found.spent, holds=credits_, lent=lent, known=known)
        planned.append(_Planned(client_id=found.client_id, epoch=found.epoch, plan=plan))
        for change_id, _ in found.known.waiting if found.known else ():
            enter_adjustment(connection, found.client_id, change_id, plan.adjusted[change_id])
    facts.mark_grants_applied(connection, shard)
    rebuilds.answered(connection, shard, began)
    return planned


def _by_client(held: Iterable[StoredHold]) -> dict[str, list[StoredHold]]:
    holds: dict[str, list[StoredHold]] = collections.defaultdict(list)
    for hold in sorted(held, key=lambda hold: (hold.created_ms, hold.run_id)):
        holds[hold.client_id].append(hold)
    return holds


def _again(shard: int, reason: str) -> Retryable:
    return Recovering(f"rebuild of shard {shard}: {reason.lower()} meanwhile; it begins anew")
