"""Rebuilds acme's bucket on the server that answers, and reads it by the laws; for the tests of recovery."""

from __future__ import annotations

from billing.core.shards import shard_of
from billing.credits.plan import BucketPlan
from billing.credits.values import Balance, RebuildOutcome
from billing.credits.verbs import Verbs
from tests.contract.laws import assert_laws
from tests.contract.servers import SHARDS

SHARD = shard_of("acme", SHARDS)


def balance_of(buckets: Verbs) -> Balance:
    """Read a balance and hold it to the laws."""
    balance = buckets.balance("acme")
    assert balance is not None
    assert_laws(balance)
    return balance


def rebuilt(buckets: Verbs, plan: BucketPlan, *, epoch: int = 2) -> RebuildOutcome:
    """Write a plan for the server that answers now."""
    _, current = buckets.server_of(SHARD)
    return buckets.rebuild("acme", epoch, plan, server=current, asserts=buckets.asserts_of(SHARD))
