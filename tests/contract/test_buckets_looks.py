"""Looks at many buckets and holds for people: bounded, so that no page costs a server what it has (L9)."""

from __future__ import annotations

from billing.core.shards import shard_of
from billing.credits.verbs import Verbs
from tests.contract.making import a_client, a_hold, a_run
from tests.contract.servers import SHARDS

SHARD = shard_of("acme", SHARDS)


def test_among_so_many_holds_only_those_whose_lease_ends_first_are_looked_at(buckets: Verbs) -> None:
    """Given holds with leases of their own, then they come in the order of their deadlines, and no more than asked."""
    a_client(buckets, 100)
    runs = [a_run(task_id=f"task-{number}") for number in range(4)]
    for run, seconds in zip(runs, (400.0, 100.0, 300.0, 200.0), strict=True):
        buckets.reserve(a_hold(run, 10))
        buckets.renew([("acme", run, seconds)])
    ordered = [runs[1], runs[3], runs[2], runs[0]]

    assert [hold.run_id for hold in buckets.held("acme")] == ordered
    for among in (1, 2, 4, 9):
        assert [hold.run_id for hold in buckets.held("acme", among=among)] == ordered[:among]
        assert [hold.run_id for hold in buckets.held(None, SHARD, among=among)] == ordered[:among]


def test_a_look_at_no_holds_has_the_whole_balance(buckets: Verbs) -> None:
    """Given holds that are not looked at, then the balance is the same, and what they were lent is not said."""
    a_client(buckets, 100)
    buckets.reserve(a_hold(a_run(), 30))

    whole, without = buckets.audit(["acme"])["acme"], buckets.audit(["acme"], holds_max=0)["acme"]

    assert (whole.holds, whole.lent) == (1, {1: 30})
    assert without.lent is None
    assert without.holds == 0
    assert without.balance == whole.balance == buckets.balances(["acme"])["acme"]
    assert without.corruption is None
