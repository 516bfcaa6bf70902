"""A takeover that Redis has lost comes back with its hold: the attempt that runs asserts what it holds (L4, L6)."""

from __future__ import annotations

from msgspec.structs import replace

from billing.core.shards import shard_of
from billing.credits.rebuilding import plan_bucket
from billing.credits.values import AssertOutcome, RebuildOutcome, ReleaseOutcome
from billing.credits.verbs import Verbs
from tests.contract.making import a_client, a_hold, a_run
from tests.contract.servers import SHARDS

SHARD = shard_of("acme", SHARDS)


def test_l6_a_takeover_that_was_lost_comes_back_with_the_hold(buckets: Verbs) -> None:
    """Given holds as they were before a second attempt took them over, then that attempt has them back whole (L4)."""
    a_client(buckets, 100)
    runs = [a_run(task_id="more"), a_run(task_id="as much"), a_run(task_id="an earlier one")]
    for run in runs:
        buckets.reserve(a_hold(run, 20, token="first"))
    buckets.close(SHARD)
    second = replace(a_hold(runs[0], 50, token="second"), attempt=2, head=b'{"attempt":2')
    assert buckets.assert_hold(second) is AssertOutcome.ASSERTED
    assert buckets.assert_hold(second) is AssertOutcome.RENEWED
    assert buckets.assert_hold(replace(second, run_id=runs[1], credits=5)) is AssertOutcome.ASSERTED
    assert buckets.assert_hold(replace(second, run_id=runs[2], attempt=1, credits=20)) is AssertOutcome.RENEWED
    assert buckets.asserts_of(SHARD) == 2
    survivors = {hold.run_id: hold for hold in buckets.held(None, SHARD)}
    found = [(survivors[run].credits, survivors[run].attempt, survivors[run].token) for run in runs]
    assert found == [(50, 2, "second"), (20, 2, "second"), (20, 1, "first")]
    assert [survivors[run].head == second.head for run in runs] == [True, True, False]
    assert all(hold.grants == {1: 20} for hold in survivors.values())

    _, server = buckets.server_of(SHARD)
    holds = [(run, survivors[run].credits) for run in runs]
    plan = plan_bucket(grants=[(1, 100)], spent={}, holds=holds)
    asserts = buckets.asserts_of(SHARD)
    assert buckets.rebuild("acme", 2, plan, server=server, asserts=asserts) is RebuildOutcome.REBUILT
    assert buckets.verify(SHARD, expected=server, asserts=asserts)
    balance = buckets.balance("acme")
    assert balance is not None
    assert (balance.available, balance.held) == (10, 90)
    assert buckets.release("acme", runs[0], "first") is ReleaseOutcome.STALE
    assert buckets.release("acme", runs[0], "second") is ReleaseOutcome.RELEASED
