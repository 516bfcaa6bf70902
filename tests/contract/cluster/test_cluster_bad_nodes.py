"""A node of a cluster that hangs, is cut off or refuses writes: the clients of the other nodes notice nothing (L10)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import redis

from billing.connections.redis import connect
from billing.core.clock import SystemClock
from billing.core.errors import Refusing, Unreachable
from billing.core.settings import Settings
from billing.credits.buckets import Buckets
from billing.credits.values import Overdue, RenewOutcome, ReserveOutcome, SettleOutcome
from billing.task.reaper import Reaper
from tests.contract.clusters import CLIENTS, ClusterServer
from tests.contract.making import a_hold, a_run, a_settlement
from tests.contract.servers import SHARDS, Server


@pytest.fixture
def hasty(cluster: ClusterServer) -> Iterator[Buckets]:
    """Return buckets that soon give a node up, for questions to one that hangs."""
    with closing(connect(cluster.settings(redis_timeout_seconds=0.2))) as client:
        yield cluster.buckets(client=client, verified=False)


@pytest.fixture
def patient(cluster: ClusterServer) -> Iterator[Buckets]:
    """Return buckets that wait once, for questions to nodes of which one hangs."""
    with closing(connect(cluster.settings(redis_timeout_seconds=3.0, redis_retries=0))) as client:
        yield cluster.buckets(client=client, verified=False)


@contextmanager
def hanging(node: Server) -> Iterator[None]:
    """Have a node answer no write for a while. It is alive for the others, so that nobody replaces it."""
    client: Any = node.client()
    client.execute_command("CLIENT", "PAUSE", 600_000, "WRITE")
    try:
        yield
    finally:
        client.execute_command("CLIENT", "UNPAUSE")


@contextmanager
def cut_off(node: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have no connection to a node take anything."""
    send: Any = redis.Connection.send_packed_command

    def cut(self: Any, *arguments: Any, **options: Any) -> Any:
        if self.port == node.port:
            message = "Connection reset by peer"
            raise redis.ConnectionError(message)
        return send(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(redis.Connection, "send_packed_command", cut)
        yield


@contextmanager
def configured(node: Server, name: str, value: str) -> Iterator[None]:
    """Set a node's configuration for a while."""
    client: Any = node.client()
    before = client.config_get(name)[name]
    client.config_set(name, value)
    try:
        yield
    finally:
        client.config_set(name, before)


def shards_of(cluster: ClusterServer) -> tuple[Server, list[int], list[int]]:
    """Return the node of shard 0, its shards, and those of the others."""
    bad = cluster.primary_of(0)
    there = [shard for shard in range(SHARDS) if cluster.primary_of(shard).port == bad.port]
    return bad, there, [shard for shard in range(SHARDS) if shard not in there]


def settled(buckets: Buckets, shard: int, task_id: str = "done") -> tuple[int, str]:
    """Settle a run of a shard; return its entry in the outbox."""
    reply = buckets.settle(a_settlement(a_run(CLIENTS[shard], task_id), 1, client_id=CLIENTS[shard]))
    assert reply.outcome is SettleOutcome.SETTLED
    assert reply.entry_id is not None
    return shard, reply.entry_id


def test_l10_a_reserve_does_not_wait_for_the_removals_of_a_node_that_hangs(
    cluster: ClusterServer, buckets: Buckets, hasty: Buckets
) -> None:
    """Given confirmed events of a hanging node, when another node's client reserves, then it holds, they are left."""
    bad, (there, *_), (here, *_) = shards_of(cluster)
    entry, own = settled(buckets, there), settled(buckets, here)
    hold = a_hold(a_run(CLIENTS[here]), 5, client_id=CLIENTS[here])
    with hanging(bad):
        reply = buckets.reserve(hold, forget=[entry, own])
        assert (reply.outcome, reply.left) == (ReserveOutcome.HELD, [entry])
        assert hasty.forget_reached([entry]) == [entry]
        with pytest.raises(Unreachable):
            hasty.forget([entry])
    assert buckets.forget_reached([entry, own]) == []
    assert (buckets.outbox_depth(there), buckets.outbox_depth(here)) == (0, 0)


def test_l10_a_removal_that_is_refused_decides_nothing(cluster: ClusterServer, buckets: Buckets) -> None:
    """Given an outbox of the same node that billing did not write, then the reserve holds, and it is tried no more."""
    ports = [cluster.primary_of(shard).port for shard in range(SHARDS)]
    first, spoiled = next((a, b) for a in range(SHARDS) for b in range(a) if ports[a] == ports[b])
    entry = settled(buckets, spoiled)
    cluster.client().execute_command("SET", f"{{billing:{spoiled}}}:outbox", "no stream")
    reply = buckets.reserve(a_hold(a_run(CLIENTS[first]), 5, client_id=CLIENTS[first]), forget=[entry])
    assert (reply.outcome, reply.left) == (ReserveOutcome.HELD, [])


def test_l10_holds_of_the_other_nodes_are_renewed_and_known_to_be(
    cluster: ClusterServer, buckets: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a node that is cut off and a shard that recovers elsewhere, then each hold has its own outcome (L5, L6)."""
    bad, there, (held, recovering, *_) = shards_of(cluster)
    items = []
    for shard in (there[0], held, recovering):
        run = a_run(CLIENTS[shard])
        assert buckets.reserve(a_hold(run, 5, client_id=CLIENTS[shard])).outcome is ReserveOutcome.HELD
        items.append((CLIENTS[shard], run, None))
    buckets.close(recovering)
    with cut_off(bad, monkeypatch):
        lost, *outcomes = buckets.renew_each(items)
        assert isinstance(lost, Unreachable)
        assert outcomes == [RenewOutcome.RENEWED, RenewOutcome.RECOVERING]
        with pytest.raises(Unreachable):
            buckets.renew(items)


def test_l10_alerts_of_the_other_nodes_are_read_and_removed(
    cluster: ClusterServer, buckets: Buckets, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bad, (there, *_), (here, *_) = shards_of(cluster)
    for shard in (there, here):
        buckets.reserve(a_hold(a_run(CLIENTS[shard]), 99, client_id=CLIENTS[shard]))
    both = buckets.alerts(count=10)
    with cut_off(bad, monkeypatch):
        assert [entry.shard for entry in buckets.alerts(count=10)] == [here]
        assert "the alerts of" in caplog.text
        buckets.forget_alerts(both)
    assert [entry.shard for entry in buckets.alerts(count=10)] == [there]
    with monkeypatch.context() as patched:
        patched.setattr(redis.Connection, "send_packed_command", _refuse)
        with pytest.raises(Unreachable):
            buckets.alerts(count=10)


def test_l10_the_functions_are_loaded_wherever_they_can_be(cluster: ClusterServer, buckets: Buckets) -> None:
    """Given a node whose memory is full, when a new library is to be loaded, then the other nodes have it (L9)."""
    nodes = [cluster.primary_of(shard) for shard in range(SHARDS)]
    admin = cluster.client()
    # Whichever node is asked first: each is the bad one once.
    for bad in {node.port: node for node in nodes}.values():
        admin.function_flush("SYNC")
        with configured(bad, "maxmemory", "1"):
            for shard, node in enumerate(nodes):
                if node.port == bad.port:
                    with pytest.raises(Refusing, match="lost billing's functions"):
                        buckets.balance(CLIENTS[shard])
                else:
                    assert buckets.balance(CLIENTS[shard]) is not None
        assert buckets.balances([*CLIENTS.values()]).keys() == {*CLIENTS.values()}, "and there as soon as it can be"


def test_l10_where_nobody_says_who_has_which_slot_what_was_answered_counts(
    cluster: ClusterServer, buckets: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a look at the cluster that fails, after one node was lost, then the answers of the others are kept."""
    bad, (there, *_), (here, *_) = shards_of(cluster)
    run = a_run(CLIENTS[here])
    assert buckets.reserve(a_hold(run, 5, client_id=CLIENTS[here])).outcome is ReserveOutcome.HELD

    def blind(_: Any) -> None:
        raise redis.ConnectionError

    with cut_off(bad, monkeypatch):
        monkeypatch.setattr("billing.connections.cluster.Cluster._look_again", blind)
        outcomes = buckets.renew_each([(CLIENTS[there], run, None), (CLIENTS[here], run, None)])
    assert isinstance(outcomes[0], Unreachable)
    assert outcomes[1] is RenewOutcome.RENEWED


def test_l10_a_sweep_asks_a_node_that_hangs_for_one_of_its_shards_and_sweeps_the_others(
    cluster: ClusterServer,
    buckets: Buckets,
    patient: Buckets,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given a node with two shards that hangs, when the reaper sweeps, then it has one wait, and all others' sweeps."""
    ports = [cluster.primary_of(shard).port for shard in range(SHARDS)]
    here, _ = next((a, b) for a in range(SHARDS) for b in range(a) if ports[a] == ports[b])
    bad = cluster.primary_of(here)
    others = {shard for shard in range(SHARDS) if ports[shard] != bad.port}
    nothing: Any = None
    reaper = Reaper(Settings(shards=SHARDS), patient, nothing, nothing, SystemClock())
    assert reaper.sweep() == 0
    asked: list[int] = []
    overdue = patient.overdue

    def counted(shard: int, count: int) -> Overdue:
        asked.append(shard)
        return overdue(shard, count)

    monkeypatch.setattr(patient, "overdue", counted)
    with hanging(bad):
        assert reaper.sweep() == 0
        assert (len(asked), len({*asked} - others), others - {*asked}) == (len(others) + 1, 1, set())
    asked.clear()
    assert reaper.sweep() == 0
    assert sorted(asked) == [*range(SHARDS)], "and all, once it answers"


def test_a_shard_says_which_node_has_it_without_asking(
    cluster: ClusterServer, buckets: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [f"127.0.0.1:{cluster.primary_of(shard).port}" for shard in range(SHARDS)]
    with monkeypatch.context() as patched:
        patched.setattr(redis.Connection, "send_packed_command", _refuse)
        assert [buckets.node_of(shard) for shard in range(SHARDS)] == nodes
    unused = cluster.buckets(client=connect(cluster.settings()), verified=False)
    assert len({unused.node_of(shard) for shard in range(SHARDS)}) == SHARDS, "not known yet: each for itself"


def _refuse(*_: Any, **__: Any) -> None:
    raise redis.ConnectionError
