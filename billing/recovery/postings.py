"""Brings postings into buckets: what the log, or a repair, says beyond a bucket's own settles (L6).

PostgreSQL has the totals, the bucket the versions that it has seen. Whoever dies between the two, or tells an old total
late, does no harm; a bucket of another epoch takes none of it, since the rebuild that made it has read the log.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Final

from billing.connections import postgres
from billing.core.errors import InvalidValue
from billing.core.rounds import Rounds
from billing.core.shards import shard_of
from billing.credits.posting import PostOutcome
from billing.ledger import postings
from billing.ledger.corruptions import tell_corruption
from billing.ledger.postings import ClientPostings
from billing.ledger.rebuilds import request_rebuild
from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: Clients of a shard, and shards, that one round looks at (L9). The next round goes on behind them.
CLIENTS_MAX: Final = 100
SHARDS_MAX: Final = 64

_DONE: Final = (PostOutcome.POSTED, PostOutcome.ALREADY)
#: They wait: for the shard, or for nothing more, a newer epoch having begun.
_WAITING: Final = (PostOutcome.RECOVERING, PostOutcome.STALE)
#: The bucket is lost, or is not what PostgreSQL says of it: the shard is rebuilt, from the log.
_LOST: Final = (PostOutcome.UNKNOWN_CLIENT, PostOutcome.CORRUPT, PostOutcome.UNCOVERED, PostOutcome.REUSED)


class Postings:
    """Goes round: shard by shard, those of a server that is away last, and in each client by client (L10)."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        # The servers are asked for, and connected to, by the first round alone.
        self._rounds = Rounds(lambda shard: runtime.buckets.node_of(shard), runtime.clock)  # noqa: PLW0108
        self._next_shard = 0
        #: The last client of each shard that was looked at, where more wait behind it.
        self._after: dict[int, str] = {}

    def step(self) -> int:
        """Apply what waits, up to a bound; return to how many. Raises `Unreachable` where no server answers."""
        with postgres.reaching(self._runtime.settings), self._runtime.engine.connect() as connection:
            waiting = postings.shards_waiting(connection)
        order = sorted(waiting, key=lambda shard: (shard < self._next_shard, shard))[:SHARDS_MAX]
        self._next_shard = order[-1] + 1 if len(order) < len(waiting) else 0
        return self._rounds.visit(order, self._of_shard)

    def _of_shard(self, shard: int) -> int:
        """Apply what waits for the next clients of a shard. One that refuses keeps no other waiting."""
        runtime, after = self._runtime, self._after.pop(shard, "")
        with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
            last = postings.last_waiting(connection, CLIENTS_MAX, after=after, shard=shard)
            found = postings.waiting(connection, CLIENTS_MAX, after=after, shard=shard)
        applied = sum(apply_posting(runtime, row) for row in found)
        if last is not None:
            self._after[shard] = last
        return applied


def apply_postings(runtime: Runtime) -> int:
    """Go round once; return to how many clients something was applied."""
    return Postings(runtime).step()


def apply_to(runtime: Runtime, client_id: str, grants: Collection[int]) -> bool:
    """Apply what waits for a client; return whether its bucket has all that is posted to these grants."""
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        found = postings.waiting(connection, 1, only=client_id)
    for row in found:
        apply_posting(runtime, row)
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        return not postings.untold(connection, client_id, grants)


def apply_posting(runtime: Runtime, row: ClientPostings) -> bool:
    """Apply what waits for one client; return whether its bucket has it now."""
    try:
        outcome = runtime.buckets.post(row.client_id, row.epoch, row.rows)
    except InvalidValue:
        # Events add up to a total that no script could read: it waits for itself (L10).
        outcome = PostOutcome.TOO_LARGE
    with postgres.reaching(runtime.settings), runtime.engine.begin() as connection:
        if outcome in _DONE:
            postings.mark_applied(connection, row)
            return True
        if outcome in _LOST:
            reason = f"a posting to client {row.client_id} found its bucket {outcome.name.lower()}"
            request_rebuild(connection, shard_of(row.client_id, runtime.settings.shards), reason)
        told = outcome in _WAITING
        if outcome is PostOutcome.TOO_LARGE:
            # It may be so for long: the doctor names it, and the log does once.
            told = not postings.mark_refused(connection, row, outcome.name)
    if outcome is PostOutcome.CORRUPT:
        tell_corruption(runtime, row.client_id)
    if not told:
        logger.warning("billing: %s is not applied: %s", row, outcome.name)
    return False
