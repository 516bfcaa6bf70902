"""A node of a cluster is replaced under a business: the rebuilder finds its shards, and every credit again (L6)."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from billing.core.errors import Retryable, Unreachable
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.credits.values import ReserveOutcome
from billing.recovery.rebuild import SILENT_MAX
from tests.contract.clusters import ClusterServer, cluster_started
from tests.contract.conftest import binary_or_skip
from tests.integration.consuming import until_rows
from tests.integration.recovering import SHARDS, Business, a_hold, business_on
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def cluster() -> Iterator[ClusterServer]:
    """Start a cluster for one test, which kills a node of it."""
    with cluster_started(binary_or_skip("valkey")) as running:
        yield running


@pytest.fixture
def business(database: Settings, cluster: ClusterServer, broker_url: str) -> Iterator[Business]:
    """Open a business on the cluster."""
    with business_on(database, cluster.url, broker_url) as business:
        yield business


def test_given_a_node_that_is_killed_when_its_replica_has_taken_over_then_its_shards_alone_are_rebuilt(
    business: Business, cluster: ClusterServer
) -> None:
    """L6, L10: the shards of the dead node come back at a new epoch with the same balances; the others go on."""
    ports = {name: cluster.primary_of(shard_of(name, SHARDS)).port for name in (f"client-{n}" for n in range(20))}
    business.client("acme", 50, 100)
    here = cluster.primary_of(shard_of("acme", SHARDS))
    other = next(name for name, port in ports.items() if port != here.port)
    business.client(other, 30)
    with business.consuming():
        running = business.hold("acme", 45, "a")
        business.hold("acme", 20, "c")
        business.settle("acme", 12, "c")
        until_rows(business.settings, 1)
        # Settled, and not published: it is in the outbox of the node that dies.
        business.settle("acme", 3, "d", publish=False)
        before = business.balance("acme")
        assert here.client().wait(1, 60_000) == 1
        here.end(signal.SIGKILL)
        with pytest.raises(Retryable):
            business.rebuilder.step()
        assert business.runtime.buckets.reserve(a_hold(other, 5, "e")).outcome is ReserveOutcome.HELD

        def rebuilt() -> bool:
            try:
                business.assert_running(running)
                return business.rebuilder.step() == 1
            except Retryable:
                return False

        with cluster.failing_over():
            wait_until(rebuilt, "the shard of the dead node is rebuilt")
    after = business.balance("acme")
    assert (after.available, after.held, after.spent, after.owed) == (
        *(before.available, before.held, before.spent, before.owed),
    )
    assert (before.epoch, after.epoch, business.balance(other).epoch) == (1, 2, 1)
    until_rows(business.settings, 2)
    business.settle("acme", 45, "a")
    assert (business.balance("acme").spent, business.balance("acme").held) == (60, 0)


def test_l10_a_shard_that_nobody_answers_for_holds_up_the_rebuild_of_no_other(
    database: Settings, redis_url: str, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given shards on a node that is dead for good, when another shard loses its trust, then that one is rebuilt."""
    with business_on(database, redis_url, broker_url) as business, business.consuming():
        names = {shard_of(name, SHARDS): name for name in (f"client-{n}" for n in range(40))}
        *dead, last = sorted(names)[: SILENT_MAX + 2]
        for shard in (*dead, last):
            business.client(names[shard], 10)
        business.close_shard(names[last])
        server_of = business.runtime.buckets.server_of
        asked: list[int] = []

        def answered(shard: int) -> tuple[str | None, str]:
            asked.append(shard)
            if shard in dead:
                message = "billing_redis_url: 'redis+cluster://n:1': the server does not answer (TimeoutError)"
                raise Unreachable(message)
            return server_of(shard)

        monkeypatch.setattr(business.runtime.buckets, "server_of", answered)
        rebuilder = business.rebuilder
        for look in (1, 2):
            with pytest.raises(Unreachable):
                rebuilder.step()
            assert sum(shard in dead for shard in asked) <= look * SILENT_MAX
        assert last in asked
        monkeypatch.undo()
        assert business.is_open(names[last])


@pytest.mark.parametrize("falls_silent", ["close", "outbox"])
def test_l10_a_shard_that_falls_silent_on_the_way_is_named_and_holds_up_the_rebuild_of_no_other(
    database: Settings, redis_url: str, broker_url: str, monkeypatch: pytest.MonkeyPatch, falls_silent: str
) -> None:
    """Given two shards of one usage queue, both lost, when one stops to answer, then the other one is rebuilt."""
    with business_on(database, redis_url, broker_url) as business, business.consuming():
        names = {shard_of(name, SHARDS): name for name in (f"client-{n}" for n in range(1_000))}
        dead, other = 8, 8 + business.settings.usage_queues
        for shard in (dead, other):
            business.client(names[shard], 10)
            business.close_shard(names[shard])
        buckets = business.runtime.buckets
        does = getattr(buckets, falls_silent)

        def answered(shard: int, **named: int) -> object:
            if shard == dead:
                message = "billing_redis_url: 'redis+cluster://n:1': the server does not answer (TimeoutError)"
                raise Unreachable(message)
            return does(shard, **named)

        monkeypatch.setattr(buckets, falls_silent, answered)
        with pytest.raises(Retryable, match=rf"^1 shards .*\({dead}\)"):
            business.rebuilder.step()
        monkeypatch.undo()
        assert [business.is_open(names[shard]) for shard in (dead, other)] == [False, True]
        assert business.rebuilder.step() == 1
