"""What a rebuild asks of Redis before it plans: holds that the log has already, and the epochs there are (L4, L6)."""

from __future__ import annotations

import pytest

from billing.core.errors import Conflict, InvalidValue
from billing.core.shards import shard_of
from billing.credits.rebuilding import plan_bucket
from billing.credits.values import RebuildOutcome, ReserveOutcome, SettleOutcome
from billing.credits.verbs import Verbs
from tests.contract.making import a_client, a_hold, a_run, a_settlement
from tests.contract.servers import SHARDS, Server

SHARD = shard_of("acme", SHARDS)
OTHER = next(name for name in map(str, range(100)) if shard_of(name, SHARDS) == SHARD)


@pytest.mark.raw("looks at a key's time to live")
def test_l4_a_hold_whose_run_is_in_the_log_is_never_settled_again(server: Server, buckets: Verbs) -> None:
    """Given a hold that came back with Redis, when the log has its run, then it is settled and has no lease."""
    a_client(buckets, 100)
    run = a_run()
    buckets.reserve(a_hold(run, 40))
    buckets.close(SHARD)

    client = server.client()
    for _ in range(2):
        buckets.mark_logged("acme", run, "logged")
        assert buckets.held("acme") == []
        assert client.zcard(f"{{billing:{SHARD}}}:leases") == 0
    assert 0 < client.pttl(f"{{billing:{SHARD}}}:run:{run.hex}") <= 3_600_000

    _, current = buckets.server_of(SHARD)
    plan = plan_bucket(grants=[(1, 100)], spent={1: 40}, holds=[])
    assert buckets.rebuild("acme", 2, plan, server=current, asserts=0) is RebuildOutcome.REBUILT
    assert buckets.verify(SHARD, expected=current)
    for settlement in ("logged", "another"):
        reply = buckets.settle(a_settlement(run, 40, settlement_id=settlement))
        assert (reply.outcome, reply.settlement_id, reply.event) == (SettleOutcome.ALREADY, "logged", None)
    assert buckets.reserve(a_hold(run, 40)).outcome is ReserveOutcome.SETTLED
    balance = buckets.balance("acme")
    assert balance is not None
    assert (balance.available, balance.held, balance.spent) == (60, 0, 40)


def test_l2_a_plan_that_lends_to_a_logged_run_is_refused(buckets: Verbs) -> None:
    a_client(buckets, 100)
    run = a_run()
    buckets.reserve(a_hold(run, 40))
    buckets.close(SHARD)
    buckets.mark_logged("acme", run, "logged")
    _, current = buckets.server_of(SHARD)
    plan = plan_bucket(grants=[(1, 100)], spent={}, holds=[(run, 40)])
    assert buckets.rebuild("acme", 2, plan, server=current, asserts=0) is RebuildOutcome.MOVED


def test_l2_a_hold_that_an_open_bucket_lends_to_is_left_to_settle(buckets: Verbs) -> None:
    a_client(buckets, 100)
    run = a_run()
    buckets.reserve(a_hold(run, 40))
    buckets.mark_logged("acme", run, "logged")
    assert [hold.run_id for hold in buckets.held("acme")] == [run]


def test_l6_on_an_open_shard_a_hold_of_a_missing_bucket_is_marked(server: Server, buckets: Verbs) -> None:
    a_client(buckets, 100)
    run = a_run()
    buckets.reserve(a_hold(run, 40))
    server.lose_bucket("acme")
    buckets.mark_logged("acme", run, "logged")
    assert buckets.held("acme") == []


@pytest.mark.raw("a lease that billing did not write")
def test_a_run_without_a_hold_or_settled_before_stays_as_it_is(server: Server, buckets: Verbs) -> None:
    a_client(buckets, 100)
    settled, gone = a_run(task_id="settled"), a_run(task_id="gone")
    buckets.settle(a_settlement(settled, 5, settlement_id="first"))
    server.client().zadd(f"{{billing:{SHARD}}}:leases", {gone.hex: 1})
    for run in (settled, gone):
        buckets.mark_logged("acme", run, "logged")
    assert buckets.settle(a_settlement(settled, 5)).settlement_id == "first"
    assert server.client().keys(f"*{gone.hex}") == []
    assert server.client().zcard(f"{{billing:{SHARD}}}:leases") == 0


def test_another_clients_run_and_an_id_that_is_no_id_are_refused(buckets: Verbs) -> None:
    a_client(buckets, 100)
    run = a_run()
    buckets.reserve(a_hold(run, 40))
    with pytest.raises(Conflict, match="another client"):
        buckets.mark_logged(OTHER, run, "logged")
    for settlement_id in ("", "a b", "a\nb"):
        with pytest.raises(InvalidValue, match="settlement_id"):
            buckets.mark_logged("acme", run, settlement_id)
    assert len(buckets.held("acme")) == 1


def test_l6_the_epoch_of_every_bucket_is_read_also_while_recovering(buckets: Verbs) -> None:
    largest = 2**53 - 1
    assert buckets.epochs([]) == {}
    buckets.open_client("acme", 7)
    buckets.open_client(OTHER, largest)
    names = ["acme", OTHER, *(f"none-{number}" for number in range(600))]
    for _ in range(2):
        epochs = buckets.epochs(names)
        assert (epochs["acme"], epochs[OTHER], epochs["none-599"], len(epochs)) == (7, largest, 0, 602)
        buckets.close(SHARD)
