"""Ends grants whose time is over, or that were voided: in the bucket first, in the ledger second.

The bucket's step (`lapse`) is the only one that moves what such a grant has available to what expired. Once no hold
refers to the grant its amounts are final and are entered, once; only then does the bucket's index forget it. A grant
that something waits to be posted to is not entered: it may pay with what has ended.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from billing.connections import postgres
from billing.core.errors import Unreachable
from billing.core.rounds import Rounds
from billing.ledger import locks
from billing.ledger.endings import enter_endings
from billing.ledger.postings import grants_waiting
from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: Grants of one shard that one sweep looks at (L9).
GRANTS_MAX: Final = 200


def lapse_grants(runtime: Runtime, rounds: Rounds | None = None) -> int:
    """Sweep every shard; return how many grants were ended for good. Raises `Retryable` when no server answers.

    Whoever repeats it gives its `rounds`, which remember who was silent: the others have their turn first (L10).
    """
    rounds = rounds or Rounds(runtime.buckets.node_of, runtime.clock)
    return rounds.visit(_due(runtime), lambda shard: _lapse_shard(runtime, shard))


def _due(runtime: Runtime) -> Sequence[int]:
    try:
        return runtime.buckets.endings_due()
    except Unreachable:
        # One question to all has one answer. Each shard is looked at for itself, so that one holds up no other (L10).
        return range(runtime.settings.shards)


def _lapse_shard(runtime: Runtime, shard: int) -> int:
    # Before the lock, which keeps its batches waiting: a server that is silent is found here, and so is that nothing is
    # due, where all shards are looked at.
    if not runtime.buckets.endings_due([shard]):
        return 0
    try:
        with (
            postgres.reaching(runtime.settings),
            runtime.engine.begin() as connection,
            locks.waiting_briefly(connection),
        ):
            # Apart from a rebuild, which would end the same grant by what it has read of the ledger, and from batches:
            # what they post to a grant is in the amounts that its bucket names, or finds its end in the ledger.
            locks.lock_shard_exclusive(connection, shard)
            waiting = grants_waiting(connection, shard)
            lapsed = runtime.buckets.lapse(shard, GRANTS_MAX)
            final = [one for one in lapsed if (one.client_id, one.grant_id) not in waiting]
            entered = enter_endings(connection, final) if final else []
    except locks.Locked as error:
        # A batch or a rebuild takes its time; the next sweep looks again, and the other shards have their turn (L10).
        logger.info("billing: ended grants of shard %d wait: %s", shard, error)
        return 0
    runtime.buckets.forget_lapsed(entered)
    return len(entered)
