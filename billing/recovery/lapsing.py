"""Ends grants whose time is over, or that were voided: in the bucket first, in the ledger second.

The bucket's step (`lapse`) is the only one that moves what such a grant has available to what expired. Once no hold
refers to the grant its amounts are final and are entered, once; only then does the bucket's index forget it.
"""

from __future__ import annotations

from typing import Final

from billing.connections import postgres
from billing.ledger import locks
from billing.ledger.endings import enter_endings
from billing.task.runtime import Runtime

#: Grants of one shard that one sweep looks at (L9).
GRANTS_MAX: Final = 200


def lapse_grants(runtime: Runtime) -> int:
    """Sweep every shard; return how many grants were ended for good. Raises `Retryable` when a server is away."""
    return sum(_lapse_shard(runtime, shard) for shard in runtime.buckets.endings_due())


def _lapse_shard(runtime: Runtime, shard: int) -> int:
    with postgres.reaching(runtime.settings), runtime.engine.begin() as connection:
        # Apart from a rebuild: it would end the same grant by what it has read of the ledger.
        locks.lock_shards_shared(connection, [shard])
        lapsed = runtime.buckets.lapse(shard, GRANTS_MAX)
        entered = enter_endings(connection, lapsed) if lapsed else []
    runtime.buckets.forget_lapsed(entered)
    return len(entered)
