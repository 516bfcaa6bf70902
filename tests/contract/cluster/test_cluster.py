"""Buckets on a cluster: a call is one exchange with one node, and a batch is one with each of its nodes (L9, L10)."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import redis

from billing.connections.redis import connect
from billing.core.errors import Unreachable
from billing.credits.buckets import Buckets
from billing.credits.values import (
    ReserveOutcome,
)
from billing.task.runtime import Runtime
from tests.contract.clusters import CLIENTS, ClusterServer, neighbours
from tests.contract.making import a_hold, a_run, a_settlement
from tests.contract.servers import SHARDS, until


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
