"""Servers that go away, processes that die between two steps: nothing lost, nothing charged twice (L1, L3, L6)."""

from __future__ import annotations

import pytest
import redis

from billing.core.errors import Recovering
from billing.embedded.stack import Stack
from tests.fleet.harness import Fleet
from tests.fleet.tasks import noted
from tests.hanging import hanging
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def is_open(fleet: Fleet, client_id: str) -> bool:
    """Whether a client's bucket can be trusted again."""
    try:
        fleet.balance(client_id)
    except Recovering:
        return False
    return True


def spent_and_held(fleet: Fleet, client_id: str) -> tuple[int, int]:
    """Return what a client has spent and what is held: a result is stored before its run is settled."""
    balance = fleet.balance(client_id)
    return balance.spent, balance.held


def test_a_wiped_redis_is_rebuilt_from_the_log_and_the_running_attempts(fleet: Fleet) -> None:
    """Given history and a running task, when Redis is emptied, then nothing is admitted until all is as before (L6)."""
    fleet.client("acme", 40)
    fleet.client("brook", 15)
    fleet.consumer(wait=False)
    fleet.worker(children=2)
    fleet.send("ok", "acme").get(timeout=120)
    fleet.send("ok", "brook").get(timeout=120)
    running = fleet.send("gated", "acme", "gate")
    wait_until(lambda: noted(fleet.directory, "gate.started"), "the gated task runs")
    wait_until(lambda: spent_and_held(fleet, "acme") == (10, 10), "the first one is settled")
    wait_until(lambda: spent_and_held(fleet, "brook") == (10, 0), "the other one too")
    before = (fleet.balance("acme"), fleet.balance("brook"))

    with redis.Redis.from_url(fleet.settings.redis_url) as client:
        client.flushall()
    waiting = fleet.send("ok", "acme")
    refused = fleet.send("ok", "brook")

    wait_until(lambda: is_open(fleet, "acme") and is_open(fleet, "brook"), "the shards are open")
    assert waiting.get(timeout=120) == 0
    wait_until(lambda: spent_and_held(fleet, "acme") == (20, 10), "it is settled")
    with pytest.raises(Exception, match="has 5 of the 10 credits"):
        refused.get(timeout=120)
    after = (fleet.balance("acme"), fleet.balance("brook"))
    assert after[0].epoch > before[0].epoch
    assert (after[0].held, after[0].spent, after[0].available) == (10, 20, 10)
    assert (after[1].held, after[1].spent, after[1].available) == (0, 10, 5)
    (fleet.directory / "gate").touch()
    assert running.get(timeout=120) == 0
    rows = fleet.wait_for_rows(4)
    assert len(rows) == 4
    assert fleet.balance("acme").available == 10


def test_a_redis_that_was_killed_and_restarted_is_verified_before_it_admits(fleet: Fleet, stack: Stack) -> None:
    """Given tasks, when Redis is killed and comes back, then tasks wait, and every credit is where it was (L6)."""
    fleet.client("acme", 200)
    fleet.consumer(wait=False)
    fleet.worker(children=2)
    first = [fleet.send("ok", "acme", number) for number in range(5)]
    assert [result.get(timeout=120) for result in first] == list(range(5))

    stack.valkey.kill()
    second = [fleet.send("ok", "acme", number) for number in range(5)]
    stack.valkey.restart()

    assert [result.get(timeout=120) for result in second] == list(range(5))
    assert len(fleet.wait_for_rows(10)) == 10
    balance = fleet.balance("acme")
    assert (balance.spent, balance.held, balance.available) == (100, 0, 100)
    assert balance.epoch > 1


def test_tasks_finish_while_rabbitmq_takes_no_events(fleet: Fleet, stack: Stack) -> None:
    """Given a broker that hangs while a task runs, then its charge waits in the outbox, and arrives later (L3)."""
    assert stack.rabbitmq is not None
    fleet.client("acme", 100)
    fleet.consumer(wait=False)
    fleet.worker(children=1)
    fleet.send("gated", "acme", "gate")
    wait_until(lambda: noted(fleet.directory, "gate.started"), "the task runs")

    with hanging(stack.rabbitmq.child.child_pid):
        (fleet.directory / "gate").touch()
        wait_until(lambda: fleet.balance("acme").spent == 10, "the task has settled")
        assert any(fleet.buckets.outbox_depth(shard) for shard in range(4))

    rows = fleet.wait_for_rows(1)
    assert [row.credits for row in rows] == [10]
    wait_until(lambda: not any(fleet.buckets.outbox_depth(shard) for shard in range(4)), "the outboxes are empty")
    balance = fleet.balance("acme")
    assert (balance.spent, balance.held) == (10, 0)


def test_events_wait_in_rabbitmq_while_postgresql_is_away(fleet: Fleet, stack: Stack) -> None:
    """Given a young copy of the price book, when PostgreSQL is killed, then tasks go on and rows follow (L3, L10)."""
    fleet.client("acme", 100)
    fleet.consumer(wait=False)
    fleet.worker(children=1)
    fleet.send("ok", "acme").get(timeout=120)

    stack.postgres.kill()
    results = [fleet.send("ok", "acme", number) for number in range(3)]
    assert [result.get(timeout=120) for result in results] == [0, 1, 2]
    stack.postgres.restart()

    assert len(fleet.wait_for_rows(4)) == 4
    assert fleet.balance("acme").spent == 40
