"""Brings postings into buckets: what the log, or a repair, says beyond a bucket's own settles (L6).

PostgreSQL has the totals, the bucket the versions that it has seen. Whoever dies between the two, or tells an old total
late, does no harm; a bucket of another epoch takes none of it, since the rebuild that made it has read the log.
"""

from __future__ import annotations

import logging
from typing import Final

from billing.connections import postgres
from billing.core.errors import InvalidValue
from billing.core.shards import shard_of
from billing.credits.posting import PostOutcome
from billing.ledger import postings
from billing.ledger.postings import ClientPostings
from billing.ledger.rebuilds import request_rebuild
from billing.recovery.each import apply_each
from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: Clients that one page looks at, and pages of one call (L9).
CLIENTS_MAX: Final = 500
PAGES_MAX: Final = 10

_DONE: Final = (PostOutcome.POSTED, PostOutcome.ALREADY)
#: They wait: for the shard, or for nothing more, a newer epoch having begun.
_WAITING: Final = (PostOutcome.RECOVERING, PostOutcome.STALE)
#: The bucket is lost, or is not what PostgreSQL says of it: the shard is rebuilt, from the log.
_LOST: Final = (PostOutcome.UNKNOWN_CLIENT, PostOutcome.CORRUPT, PostOutcome.UNCOVERED, PostOutcome.REUSED)


def apply_postings(runtime: Runtime) -> int:
    """Apply what waits, client by client; return to how many. One that refuses keeps no other waiting (L10)."""
    applied, after = 0, ""
    for _ in range(PAGES_MAX):
        with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
            found = postings.waiting(connection, CLIENTS_MAX, after=after)
        applied += apply_each(found, lambda row: apply_posting(runtime, row), shards=runtime.settings.shards)
        if len(found) < CLIENTS_MAX:
            break
        after = found[-1].client_id
    return applied


def apply_posting(runtime: Runtime, row: ClientPostings) -> bool:
    """Apply what waits for one client; return whether its bucket has it now."""
    try:
        outcome = runtime.buckets.post(row.client_id, row.epoch, row.rows)
    except InvalidValue:
        # Events add up to a total that no script could read: it waits, and keeps no other client's waiting (L10).
        outcome = PostOutcome.TOO_LARGE
    with postgres.reaching(runtime.settings), runtime.engine.begin() as connection:
        if outcome in _DONE:
            postings.mark_applied(connection, row)
            return True
        if outcome in _LOST:
            reason = f"a posting to client {row.client_id} found its bucket {outcome.name.lower()}"
            request_rebuild(connection, shard_of(row.client_id, runtime.settings.shards), reason)
    if outcome not in _WAITING:
        logger.warning("billing: %s is not applied: %s", row, outcome.name)
    return False
