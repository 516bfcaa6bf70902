"""Overdraft room over a rebuild: what was lent of it stays lent, whatever the limit is by then (L1, L6)."""

from __future__ import annotations

from billing.core.shards import shard_of
from billing.credits.plan import LedgerTerms
from billing.credits.rebuilding import plan_bucket
from billing.credits.terms import ClientTerms
from billing.credits.values import Balance, RebuildOutcome, ReserveOutcome, SettleOutcome
from billing.credits.verbs import Verbs
from tests.contract.laws import assert_laws
from tests.contract.making import a_client, a_hold, a_run, a_settlement
from tests.contract.servers import SHARDS

SHARD = shard_of("acme", SHARDS)
RUN = a_run()


def balance_of(buckets: Verbs) -> Balance:
    """Read a balance and hold it to the laws."""
    balance = buckets.balance("acme")
    assert balance is not None
    assert_laws(balance)
    return balance


def test_l1_a_rebuild_forgives_no_room_that_a_lower_limit_would_not(buckets: Verbs) -> None:
    """Given a hold of 400 on 100 credits and a limit of 300, then lowered to 0: 300 is owed before and after."""
    a_client(buckets, 100)
    buckets.set_terms("acme", ClientTerms(overdraft_limit=300))
    assert buckets.reserve(a_hold(RUN, 400)).outcome is ReserveOutcome.HELD
    buckets.set_terms("acme", ClientTerms())
    before = balance_of(buckets)

    holds = buckets.held("acme")
    plan = plan_bucket(
        grants=[(1, 100)],
        spent={},
        holds=[(hold.run_id, hold.credits) for hold in holds],
        lent={hold.run_id: hold.grants for hold in holds},
        known=LedgerTerms(claims={RUN: ("page", holds[0].created_ms)}),
    )
    buckets.close(SHARD)
    _, server = buckets.server_of(SHARD)
    asserts = buckets.asserts_of(SHARD)
    assert buckets.rebuild("acme", 2, plan, server=server, asserts=asserts) is RebuildOutcome.REBUILT
    assert buckets.verify(SHARD, expected=server, asserts=asserts)
    after = balance_of(buckets)
    assert (after.available, after.held, after.room) == (before.available, before.held, before.room) == (0, 400, 300)

    buckets.grant("acme", 2, 50)
    assert buckets.reserve(a_hold(a_run(task_id="new"), 50)).outcome is ReserveOutcome.INSUFFICIENT
    assert buckets.settle(a_settlement(RUN, 400)).outcome is SettleOutcome.SETTLED
    assert balance_of(buckets).owed == 250
