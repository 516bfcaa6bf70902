"""Brings grants that PostgreSQL has into their buckets.

A grant is written to PostgreSQL first and to Redis second; a giver that dies between the two, or a shard that is
recovering, leaves it open, and this closes it. The script is idempotent by grant id, so twice does no harm.
"""

from __future__ import annotations

import logging
from typing import Final

from billing.connections import postgres
from billing.core.change_log import GRANTS, log_change
from billing.core.errors import Recovering
from billing.core.shards import shard_of
from billing.credits.values import GrantOutcome
from billing.ledger.corruptions import tell_corruption
from billing.ledger.grants import GrantRow, mark_applied, unapplied
from billing.ledger.rebuilds import request_rebuild
from billing.recovery.each import apply_each
from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: Where a grant that the ledger has comes into its bucket by a rebuild alone.
_REBUILT: Final = (GrantOutcome.UNKNOWN_CLIENT, GrantOutcome.CORRUPT)

#: Grants that one call looks at (L9).
GRANTS_MAX: Final = 500


def apply_grants(runtime: Runtime) -> int:
    """Apply open grants, the oldest first; return how many were applied.

    One that cannot be applied is logged, and keeps back its own client's or shard's later ones at most (L10).
    """
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        waiting = unapplied(connection, GRANTS_MAX)
    return apply_each(waiting, lambda row: apply_grant(runtime, row), shards=runtime.settings.shards)


def apply_grant(runtime: Runtime, row: GrantRow) -> bool:
    """Apply one grant; return whether its bucket has it now."""
    outcome = runtime.buckets.grant(row.client_id, row.grant_id, row.credits, row.for_bucket())
    with postgres.reaching(runtime.settings), runtime.engine.begin() as connection:
        if outcome in (GrantOutcome.GRANTED, GrantOutcome.ALREADY):
            mark_applied(connection, row.grant_id)
            if outcome is GrantOutcome.GRANTED:
                log_change(GRANTS, "granted", grant_id=row.grant_id, client_id=row.client_id, credits=row.credits)
            return True
        if outcome in _REBUILT:
            # The client exists in PostgreSQL, so its bucket is lost: the shard is rebuilt, from the ledger (L6).
            reason = f"grant {row.grant_id} of client {row.client_id} found its bucket {outcome.name.lower()}"
            request_rebuild(connection, shard_of(row.client_id, runtime.settings.shards), reason)
    if outcome is GrantOutcome.CORRUPT:
        tell_corruption(runtime, row.client_id)
    if outcome is not GrantOutcome.RECOVERING:
        logger.warning("billing: grant %d of client %s is not applied: %s", row.grant_id, row.client_id, outcome.name)
    return False


def used_up(runtime: Runtime, client_id: str) -> frozenset[int]:
    """Return the grants of a client that have nothing left in its bucket, and that nothing comes back to.

    Raises `Retryable` while the bucket cannot be asked.
    """
    balance = runtime.buckets.balance(client_id)
    if balance is None:
        message = f"client_id: {client_id!r}: its bucket is missing, so that its usable grants are not known; try again"
        raise Recovering(message)
    return frozenset(grant.grant_id for grant in balance.grants if not grant.available and not grant.held)
