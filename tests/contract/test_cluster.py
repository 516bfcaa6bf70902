"""Buckets on a cluster: a call is one exchange with one node, and a node that is replaced admits nothing unproven."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

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
from billing.task.runtime import Runtime
from tests.contract.clusters import CLIENTS, ClusterServer, clients_on_each_shard
from tests.contract.laws import assert_laws
from tests.contract.making import a_hold, a_run, a_settlement
from tests.contract.servers import LEASE_SECONDS, SHARDS, Server, until


@pytest.fixture
def buckets(cluster: ClusterServer) -> Iterator[Buckets]:
    """Return buckets with a client of 100 credits on each shard, on an empty cluster."""
    with clients_on_each_shard(cluster) as made:
        yield made


def commands_of(cluster: ClusterServer, work: Callable[[], object]) -> dict[int, dict[str, int]]:
    """Return which commands each primary was sent, or ran in a function, while `work` did."""
    primaries = [node for node in cluster.nodes if node.client().info("replication")["role"] == "master"]
    for node in primaries:
        node.client().config_resetstat()
    work()
    found = {}
    quiet = ("config", "info", "client", "hello", "replconf", "ping", "psync")
    for node in primaries:
        statistics = node.client().info("commandstats")
        counts = {name.removeprefix("cmdstat_"): int(entry["calls"]) for name, entry in statistics.items()}
        found[node.port] = {name: calls for name, calls in counts.items() if not name.startswith(quiet)}
    return {port: counts for port, counts in found.items() if counts}


def writes_of(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> Counter[int]:
    """Return how often this process wrote to each port while `work` did: one write is one round trip."""
    written: Counter[int] = Counter()
    send: Any = redis.Connection.send_packed_command

    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        written[self.port] += 1
        return send(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(redis.Connection, "send_packed_command", counted)
        work()
    return written


def neighbours(cluster: ClusterServer) -> tuple[int, int]:
    """Return two shards on different nodes."""
    first = cluster.primary_of(0).port
    return 0, next(shard for shard in range(SHARDS) if cluster.primary_of(shard).port != first)


def test_a_lifecycle_on_a_cluster_is_the_commands_of_one_server_on_one_node(
    cluster: ClusterServer, buckets: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a client that redis-py would send to ask for keys, then nothing but the call itself is sent (L9)."""
    run, port = a_run(CLIENTS[0], at_milliseconds=None), cluster.primary_of(0).port
    hold = a_hold(run, 5, client_id=CLIENTS[0])
    assert commands_of(cluster, lambda: buckets.reserve(hold)) == {
        port: {"fcall": 1, "mget": 1, "xlen": 1, "time": 1, "mset": 1, "zadd": 1}
    }
    settlement = a_settlement(run, 3, client_id=CLIENTS[0])
    assert commands_of(cluster, lambda: buckets.settle(settlement)) == {
        port: {"fcall": 1, "mget": 1, "time": 1, "xadd": 1, "set": 2, "zrem": 1}
    }
    again = a_hold(a_run(CLIENTS[0], "t2"), 5, client_id=CLIENTS[0])
    assert writes_of(monkeypatch, lambda: buckets.reserve(again)) == {port: 1}
    assert writes_of(monkeypatch, lambda: buckets.settle(a_settlement(again.run_id, 5, client_id=CLIENTS[0]))) == {
        port: 1
    }


def test_a_batch_over_all_shards_is_one_round_trip_a_node(
    cluster: ClusterServer, buckets: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = {cluster.primary_of(shard).port for shard in range(SHARDS)}
    assert len(ports) == 3
    items = [(client_id, a_run(client_id), None) for client_id in CLIENTS.values()] * 5
    assert writes_of(monkeypatch, lambda: buckets.renew(items)) == dict.fromkeys(ports, 1)
    assert writes_of(monkeypatch, lambda: buckets.oldest_outbox_ms(range(SHARDS))) == dict.fromkeys(ports, 1)

    here, there = neighbours(cluster)
    entry = buckets.settle(a_settlement(a_run(CLIENTS[there]), 1, client_id=CLIENTS[there])).entry_id
    assert entry is not None
    hold = a_hold(a_run(CLIENTS[here]), 5, client_id=CLIENTS[here])
    # A removal rides on its own node alone; what is left is removed by a flush, in one round trip for all nodes.
    port = cluster.primary_of(here).port
    own = buckets.settle(a_settlement(a_run(CLIENTS[here]), 1, client_id=CLIENTS[here])).entry_id
    assert own is not None
    replies = []
    forget = [(there, entry), (here, own)]
    assert writes_of(monkeypatch, lambda: replies.append(buckets.reserve(hold, forget=forget))) == {port: 1}
    assert (replies[0].outcome, replies[0].left) == (ReserveOutcome.HELD, [(there, entry)])
    assert (buckets.outbox_depth(here), buckets.outbox_depth(there)) == (0, 1)
    both = {cluster.primary_of(shard).port for shard in (here, there)}
    assert writes_of(monkeypatch, lambda: buckets.forget_reached(forget)) == dict.fromkeys(both, 1)
    assert buckets.outbox_depth(there) == 0


def test_the_functions_are_loaded_on_every_primary_at_the_first_miss(cluster: ClusterServer, buckets: Buckets) -> None:
    cluster.client().function_flush("SYNC")
    assert buckets.balances(list(CLIENTS.values())).keys() == set(CLIENTS.values())
    for shard in range(SHARDS):
        (library,) = cluster.primary_of(shard).client().function_list()
        assert b"billing_" in library[1]


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


def test_a_forked_process_leaves_its_parents_connections_alone(cluster: ClusterServer, buckets: Buckets) -> None:
    """Given connections to all nodes, when a child forgets them and ends, then the parent goes on with them."""
    runtime = Runtime(cluster.settings)
    names = list(CLIENTS.values())
    assert runtime.buckets.balances(names).keys() == {*names}
    child = os.fork()
    if not child:  # pragma: no cover - ends here
        os._exit(0 if runtime.buckets.balances(names).keys() == {*names} else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(redis.Connection, "_connect", lambda self: pytest.fail(f"{self} connects again"))
        assert runtime.buckets.balances(names) == buckets.balances(names)
    runtime.close()


def test_l10_a_dead_node_costs_one_wait_a_try_however_many_commands_it_was_sent(
    cluster: ClusterServer, buckets: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a node that hangs, when 500 holds are renewed, then its connection is tried twice, not 500 times (L9)."""
    lost, _ = neighbours(cluster)
    client = connect(cluster.settings(redis_timeout_seconds=0.5))
    quick = cluster.buckets(client=client, verified=False)
    items = [(CLIENTS[shard], a_run(CLIENTS[shard], str(n)), None) for n in range(125) for shard in range(SHARDS)]
    assert len(quick.renew(items)) == 500
    victim = cluster.primary_of(lost)
    tries: Counter[int] = Counter()
    send: Any = redis.Connection.send_packed_command

    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        tries[self.port] += 1
        return send(self, *arguments, **options)

    victim.signal(signal.SIGSTOP)
    try:
        monkeypatch.setattr(redis.Connection, "send_packed_command", counted)
        with pytest.raises(Unreachable):
            quick.renew(items)
    finally:
        monkeypatch.undo()
        victim.signal(signal.SIGCONT)
        client.close()
    # Twice the batch; the rest are what a new connection says, and who has which slot.
    assert 2 <= tries[victim.port] <= 8
    until(cluster.healthy, "the cluster is whole")


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
