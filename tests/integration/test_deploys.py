"""What a deploy does to runs that go on: nothing loses its hold, nothing loses its charge (L3, L5)."""

from __future__ import annotations

import signal

import pytest
import redis

from billing.core.errors import Recovering
from tests.fleet.harness import Fleet
from tests.fleet.tasks import noted
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_a_run_keeps_its_hold_through_a_warm_shutdown(fleet: Fleet) -> None:
    """Given a run that goes on while its worker waits for it to end, then its lease is renewed all the while (L5)."""
    fleet.client("acme", 10)
    fleet.consumer(wait=False)
    worker = fleet.worker(children=1)
    fleet.send("gated", "acme", "gate")
    wait_until(lambda: noted(fleet.directory, "gate.started"), "the task runs")

    worker.signal(signal.SIGTERM)
    wait_until(lambda: "Warm shutdown" in worker.log.read_text(), "the worker shuts down")
    first = fleet.holds("acme")[0].deadline_ms
    # Two leases later the hold would long be gone.
    wait_until(lambda: fleet.holds("acme")[0].deadline_ms > first + 6_000, "leases are renewed")
    assert worker.running
    (fleet.directory / "gate").touch()

    assert [row.late for row in fleet.wait_for_rows(1)] == [False]
    balance = fleet.balance("acme")
    assert (balance.spent, balance.held) == (10, 0)


def test_a_process_that_ends_while_its_shard_recovers_loses_no_charge(fleet: Fleet) -> None:
    """Given a wiped Redis that nobody rebuilds yet, when a task ends and its process too, then it is charged (L3)."""
    fleet.client("acme", 100)
    fleet.worker(children=1, options=("--max-tasks-per-child", "1"))
    result = fleet.send("gated", "acme", "gate")
    wait_until(lambda: noted(fleet.directory, "gate.started"), "the task runs")

    with redis.Redis.from_url(fleet.settings.redis_url) as client:
        client.flushall()
    (fleet.directory / "gate").touch()
    assert result.get(timeout=120) == 0
    wait_until(lambda: "direct=True" in (fleet.directory / "worker.log").read_text(), "the process ends")
    fleet.consumer()

    assert [row.credits for row in fleet.wait_for_rows(1)] == [10]

    def as_before() -> bool:
        try:
            balance = fleet.balance("acme")
        except Recovering:
            return False
        return (balance.spent, balance.held, balance.available, balance.owed) == (10, 0, 90, 0)

    wait_until(as_before, "the bucket has paid")
    assert len(fleet.rows()) == 1


def test_a_worker_with_another_number_of_shards_does_not_start(fleet: Fleet) -> None:
    """Given a changed `billing_shards`, then the worker refuses to start, and says so in one line."""
    fleet.client("acme", 10)

    worker = fleet.start("wrong", environment={"BILLING_SHARDS": "2"})

    assert worker.wait(120) not in (None, 0)
    assert "billing_shards: 2: must stay 4" in worker.log.read_text()
    assert "Traceback" not in worker.log.read_text()
