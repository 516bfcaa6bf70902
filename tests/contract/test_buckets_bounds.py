"""The bound of all sums of a bucket, kept beside its grants, and what a rebuild reads of a bucket (L2, L6)."""

from __future__ import annotations

import pytest

from billing.core.credits import CREDITS_MAX
from billing.core.shards import shard_of
from billing.credits.buckets import Buckets
from billing.credits.granting import AdjustOutcome
from billing.credits.rebuilding import plan_bucket
from billing.credits.values import GrantOutcome, RebuildOutcome
from billing.credits.verbs import Verbs
from tests.contract.making import a_client, a_run, a_settlement
from tests.contract.servers import SHARDS, Server
from tests.contract.twins import TwinServer

#: The keys are read as they stand.
ON_CLUSTER = False
SHARD = shard_of("acme", SHARDS)


@pytest.mark.raw("a field of a bucket's hash")
def test_l2_the_bound_of_all_sums_is_the_same_after_a_rebuild_and_in_a_bucket_of_older_scripts(
    server: Server, buckets: Buckets
) -> None:
    """The sum is kept beside the grants; where nobody kept it, it is added up."""
    a_client(buckets)
    buckets.close(SHARD)
    plan = plan_bucket(grants=[(1, CREDITS_MAX - 30), (2, 5)], spent={0: 10}, holds=[])
    server_id, asserts = buckets.server_of(SHARD)[1], buckets.asserts_of(SHARD)
    assert buckets.rebuild("acme", 2, plan, server=server_id, asserts=asserts) is RebuildOutcome.REBUILT
    buckets.verify(SHARD, expected=None)
    key = f"{{billing:{SHARD}}}:grants:acme"
    assert server.client().hget(key, "g") == str(CREDITS_MAX - 25).encode()
    server.client().hdel(key, "g")
    assert buckets.adjust("acme", 1, CREDITS_MAX).outcome is AdjustOutcome.TOO_LARGE
    assert buckets.grant("acme", 3, 16) is GrantOutcome.TOO_LARGE
    assert buckets.grant("acme", 3, 15) is GrantOutcome.GRANTED
    assert server.client().hget(key, "g") == str(CREDITS_MAX - 10).encode()
    assert buckets.grant("acme", 4, 1) is GrantOutcome.TOO_LARGE


def test_l6_who_repaid_a_debt_is_read_from_a_bucket_that_is_still_there(
    server: Server | TwinServer, buckets: Verbs
) -> None:
    """Given a key of another type, or none, then nobody is known to have repaid."""
    a_client(buckets)
    a_client(buckets, 10, client_id="globex")
    buckets.settle(a_settlement(a_run(), 30))
    for grant_id, credits_ in ((1, 20), (2, 50)):
        buckets.grant("acme", grant_id, credits_)
    if not isinstance(server, TwinServer):
        server.client().set(f"{{billing:{shard_of('spoiled', SHARDS)}}}:grants:spoiled", "text")
    buckets.close(SHARD)
    asked = {"acme": [2, 1, 7], "globex": [1], "spoiled": [1], "nobody": [], "lost": [4]}
    assert buckets.repaid(asked) == {"acme": {2: 10, 1: 20}, "globex": {}, "spoiled": {}, "lost": {}}
