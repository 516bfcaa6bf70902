"""Brings changes of clients that PostgreSQL has into their buckets: voids, adjustments, states, overdraft limits.

As grants: written to PostgreSQL first, to Redis second; whoever died between the two leaves it open, and this closes
it. Each script is idempotent by the change's id or writes absolute values, so twice does no harm.
"""

from __future__ import annotations

import logging
from enum import Enum
from typing import Final

from sqlalchemy import Connection, select

from billing.connections import postgres
from billing.core.shards import shard_of
from billing.credits.granting import AdjustOutcome, TermsOutcome, VoidOutcome
from billing.credits.terms import ClientState, ClientTerms
from billing.ledger import locks
from billing.ledger.changes import ChangeRow, enter_adjustment, mark_applied, unapplied
from billing.ledger.corruptions import tell_corruption
from billing.ledger.rebuilds import request_rebuild
from billing.recovery.each import apply_each
from billing.schema.tables import client
from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: Changes that one call looks at (L9).
CHANGES_MAX: Final = 500

_DONE: Final = (
    *(VoidOutcome.VOIDED, VoidOutcome.ALREADY),
    *(AdjustOutcome.ADJUSTED, AdjustOutcome.ALREADY),
    TermsOutcome.SET,
)
#: The client exists in PostgreSQL, so that its bucket is lost: the shard is rebuilt (L6).
_LOST: Final = ("UNKNOWN_CLIENT", "CORRUPT")
#: They wait for their turn: for the shard, or for the grant that is voided.
_WAITING: Final = ("RECOVERING", "UNKNOWN_GRANT")


def apply_changes(runtime: Runtime) -> int:
    """Apply open changes, the oldest first; return how many were applied.

    One that cannot be applied is logged, and keeps back its own client's or shard's later ones at most (L10).
    """
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        waiting = unapplied(connection, CHANGES_MAX)
    return apply_each(waiting, lambda row: apply_change(runtime, row), shards=runtime.settings.shards)


def apply_change(runtime: Runtime, row: ChangeRow) -> bool:
    """Apply one change; return whether its bucket has it now."""
    try:
        return _apply_change(runtime, row)
    except locks.Locked as error:
        # While its shard is rebuilt, say: the others have their turn (L10).
        logger.warning("billing: %s of client %s waits: %s", row, row.client_id, error)
        return False


def _apply_change(runtime: Runtime, row: ChangeRow) -> bool:
    shard = shard_of(row.client_id, runtime.settings.shards)
    with postgres.reaching(runtime.settings), runtime.engine.begin() as connection, locks.waiting_briefly(connection):
        # Apart from a rebuild, which applies what it finds open.
        locks.lock_shards_shared(connection, [shard])
        outcome = _apply(runtime, connection, row)
        if outcome in _DONE:
            mark_applied(connection, row.change_id)
            return True
        if outcome.name in _LOST:
            reason = f"{row} of client {row.client_id} found its bucket {outcome.name.lower()}"
            request_rebuild(connection, shard, reason)
    if outcome.name == "CORRUPT":
        tell_corruption(runtime, row.client_id)
    if outcome.name not in _WAITING:
        logger.warning("billing: %s of client %s is not applied: %s", row, row.client_id, outcome.name)
    return False


def _apply(runtime: Runtime, connection: Connection, row: ChangeRow) -> Enum:
    if row.kind == "void":
        return runtime.buckets.void(row.client_id, row.grant_id or 0)
    if row.kind == "adjust":
        reply = runtime.buckets.adjust(row.client_id, row.change_id, row.credits or 0)
        if reply.outcome in _DONE:
            enter_adjustment(connection, row.client_id, row.change_id, reply.grants)
        return reply.outcome
    # What the client is now, whichever change made it so. Its row is locked, so that the last one to write is right.
    now = select(client.c.state, client.c.overdraft_limit).where(client.c.client_id == row.client_id)
    found = connection.execute(now.with_for_update(key_share=True)).one()
    terms = ClientTerms(state=ClientState[found.state.upper()], overdraft_limit=found.overdraft_limit)
    return runtime.buckets.set_terms(row.client_id, terms)
