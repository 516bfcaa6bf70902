"""A shard of a cluster is trusted on the node that has it: one that takes its place admits nothing unproven (L6)."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from billing.connections.redis import connect
from billing.core.errors import Recovering, Unreachable
from billing.credits.buckets import Buckets
from billing.credits.rebuilding import plan_bucket
from billing.credits.values import (
    AssertOutcome,
    RebuildOutcome,
    ReleaseOutcome,
    RenewOutcome,
    ReserveOutcome,
    SettleOutcome,
)
from tests.contract.clusters import CLIENTS, ClusterServer, neighbours
from tests.contract.laws import assert_laws
from tests.contract.making import a_hold, a_run, a_settlement
from tests.contract.servers import LEASE_SECONDS, SHARDS, Server, until


def test_l6_each_shard_is_trusted_on_the_node_that_has_it(cluster: ClusterServer, buckets: Buckets) -> None:
    servers = {shard: buckets.server_of(shard) for shard in range(SHARDS)}
    assert all(verified == current for verified, current in servers.values())
    for shard in range(SHARDS):
        information: Any = cluster.primary_of(shard).client().info("server")
        assert servers[shard][1] == information["run_id"]
    assert len({current for _, current in servers.values()}) == 3


def test_l6_a_slot_that_moves_to_another_node_is_followed_and_not_trusted(
    cluster: ClusterServer, buckets: Buckets
) -> None:
    """Given MOVED, when the shard is asked again, then its new node answers, and admits nothing until it is rebuilt."""
    here, there = neighbours(cluster)
    client_id, source, target = CLIENTS[here], cluster.primary_of(here), cluster.primary_of(there)
    a, b = _raw(source), _raw(target)
    ids = {"source": a.execute_command("CLUSTER", "MYID"), "target": b.execute_command("CLUSTER", "MYID")}
    slot = cluster.client().keyslot(f"{{billing:{here}}}:")

    def move(source: Any, target: Any, source_id: bytes, target_id: bytes, port: int) -> None:
        target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        while keys := source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.execute_command("MIGRATE", "127.0.0.1", port, "", 0, 5_000, "KEYS", *keys)
        for node in (target, source):
            node.execute_command("CLUSTER", "SETSLOT", slot, "NODE", target_id)

    client = connect(cluster.settings())
    stale = cluster.buckets(client=client, verified=False)
    before = (a.info("server")["run_id"], a.info("server")["run_id"])
    assert stale.server_of(here) == before
    move(a, b, ids["source"], ids["target"], target.port)
    try:
        # Whoever knows the old node alone is told of the new one, and asks that one who it is.
        assert stale.server_of(here) == (before[0], b.info("server")["run_id"])
        assert stale.outbox(here, older_than_ms=0, count=1) == []
        client.close()
        hold = a_hold(a_run(client_id), 5, client_id=client_id)
        assert buckets.reserve(hold).outcome is ReserveOutcome.RECOVERING
        verified, current = buckets.server_of(here)
        assert (verified, current) == (a.info("server")["run_id"], b.info("server")["run_id"])
        _rebuilt(buckets, here, epoch=2)
        assert buckets.reserve(hold).outcome is ReserveOutcome.HELD
    finally:
        move(b, a, ids["target"], ids["source"], source.port)
    assert buckets.renew([(client_id, hold.run_id, None)]) == [RenewOutcome.RECOVERING]


def test_l6_a_promoted_replica_admits_nothing_until_its_shards_are_rebuilt_and_the_others_go_on(
    cluster: ClusterServer, buckets: Buckets
) -> None:
    """Given a primary that is killed, with holds and events on it, when its replica takes over, then L6 and L10."""
    lost, other = neighbours(cluster)
    victim = cluster.primary_of(lost)
    gone = {shard for shard in range(SHARDS) if cluster.primary_of(shard).port == victim.port}
    client_id = CLIENTS[lost]
    running, done = a_run(client_id, "running"), a_run(client_id, "done")
    assert buckets.reserve(a_hold(running, 40, client_id=client_id)).outcome is ReserveOutcome.HELD
    buckets.settle(a_settlement(done, 7, client_id=client_id))
    before = buckets.balance(client_id)
    first = buckets.server_of(lost)[1]
    victim.replicated()

    victim.end(signal.SIGKILL)
    with pytest.raises(Unreachable, match=r"^billing_redis_url: 'redis\+cluster://"):
        buckets.reserve(a_hold(a_run(client_id, "early"), 1, client_id=client_id))
    # Nobody has replaced it yet: one call to all shards fails, and has done its work on the others.
    others = [CLIENTS[shard] for shard in range(SHARDS) if shard not in gone]
    holds = [a_hold(a_run(name, "there"), 1, client_id=name) for name in others]
    assert {buckets.reserve(hold).outcome for hold in holds} == {ReserveOutcome.HELD}
    was = {hold.run_id: hold.deadline_ms for name in others for hold in buckets.held(name)}
    items = [(client_id, running, None), *((hold.client_id, hold.run_id, 2 * LEASE_SECONDS) for hold in holds)]
    with pytest.raises(Unreachable):
        buckets.renew(items)
    assert all(hold.deadline_ms > was[hold.run_id] for name in others for hold in buckets.held(name))

    answers: list[ReserveOutcome] = []

    def answers_again() -> bool:
        try:
            answers.append(buckets.reserve(a_hold(a_run(client_id, "new"), 1, client_id=client_id)).outcome)
        except Unreachable:
            return False
        return True

    with cluster.failing_over():
        until(answers_again, "the replica is promoted")
    assert answers == [ReserveOutcome.RECOVERING]
    verified, current = buckets.server_of(lost)
    assert verified == first != current
    with pytest.raises(Recovering):
        buckets.balance(client_id)
    assert buckets.settle(a_settlement(running, 5, client_id=client_id)).outcome is SettleOutcome.RECOVERING
    assert buckets.release(client_id, running, "first") is ReleaseOutcome.RECOVERING
    more = a_hold(a_run(CLIENTS[other], "more"), 1, client_id=CLIENTS[other])
    assert buckets.reserve(more).outcome is ReserveOutcome.HELD

    for shard in sorted(gone):
        _rebuilt(buckets, shard, epoch=2, spent={1: 7} if shard == lost else {})
    after = buckets.balance(client_id)
    assert before is not None
    assert after is not None
    assert (after.available, after.held, after.spent) == (before.available, before.held, before.spent) == (53, 40, 7)
    assert_laws(after)
    assert buckets.settle(a_settlement(running, 40, client_id=client_id)).outcome is SettleOutcome.SETTLED
    assert [entry.event for entry in buckets.outbox(lost, older_than_ms=0, count=10)], "events outlive a failover"

    victim.start()  # as the replica of the one that took its place
    until(cluster.healthy, "the cluster is whole")
    cluster.be_patient()
    assert buckets.balance(client_id) is not None


def _raw(node: Server) -> Any:
    return node.client()


def _rebuilt(buckets: Buckets, shard: int, *, epoch: int, spent: dict[int, int] | None = None) -> None:
    """Rebuild a shard of one client with one grant of 100, and its holds as workers assert them, then open it."""
    client_id = CLIENTS[shard]
    held = buckets.held(client_id)
    for hold in held:
        again = a_hold(hold.run_id, hold.credits, client_id=client_id, token="*")
        assert buckets.assert_hold(again) in {AssertOutcome.RENEWED, AssertOutcome.ASSERTED}
    _, current = buckets.server_of(shard)
    asserts = buckets.asserts_of(shard)
    plan = plan_bucket(
        grants=[(1, 100)], spent=spent or {}, holds=[(hold.run_id, hold.credits) for hold in buckets.held(client_id)]
    )
    outcome = buckets.rebuild(client_id, epoch, plan, server=current, asserts=asserts)
    assert outcome is RebuildOutcome.REBUILT
    assert buckets.verify(shard, expected=current, asserts=asserts)
