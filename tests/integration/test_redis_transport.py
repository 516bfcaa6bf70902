"""The same fleet without RabbitMQ: kombu's Redis transport, which has no confirms (L3)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from billing import admin
from billing.embedded.stack import Stack
from tests.fleet.deliveries import deliveries
from tests.fleet.fixtures import make_fleet
from tests.fleet.harness import Fleet
from tests.fleet.tasks import noted
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def redis_fleet(redis_url: str, result_url: str, database_url: str, stack: Stack, tmp_path: Path) -> Iterator[Fleet]:
    """Make a fleet whose broker is the result backend's Valkey, in another database of it."""
    servers = {
        "BILLING_REDIS_URL": redis_url,
        "BILLING_RESULT_URL": result_url,
        "BILLING_BROKER_URL": stack.results.url_of(1),
        "BILLING_DATABASE_URL": database_url,
    }
    with make_fleet(servers, tmp_path) as fleet:
        yield fleet


def test_every_success_is_one_row_and_the_outbox_is_empty_once_rows_are_committed(redis_fleet: Fleet) -> None:
    """Given no confirms, when tasks succeed, then entries stay until their rows are there, and each is one row."""
    fleet = redis_fleet
    fleet.client("acme", 295)
    fleet.worker()

    results = [fleet.send("ok", "acme", number) for number in range(30)]

    endings = [result.get(timeout=120, propagate=False) for result in results]
    assert sum(isinstance(ending, int) for ending in endings) == 29
    # A result is stored before its run is settled.
    wait_until(lambda: sum(fleet.buckets.outbox_depth(shard) for shard in range(4)) == 29, "all are settled")
    fleet.consumer()
    rows = fleet.wait_for_rows(29)
    assert len({row.correlation_id for row in rows}) == len(rows) == 29
    wait_until(lambda: not any(fleet.buckets.outbox_depth(shard) for shard in range(4)), "the outboxes are empty")
    balance = fleet.balance("acme")
    assert (balance.spent, balance.held, balance.available) == (290, 0, 5)


def test_a_child_killed_while_running_is_charged_once(redis_fleet: Fleet) -> None:
    """Given a task whose process dies by SIGKILL, when it is given back and succeeds, then one row (L3)."""
    fleet = redis_fleet
    fleet.client("acme", 10)
    fleet.consumer(wait=False)
    fleet.worker()

    assert fleet.send("killed_once", "acme", "victim").get(timeout=120) == 2

    assert len(fleet.wait_for_rows(1)) == 1
    balance = fleet.balance("acme")
    assert (balance.spent, balance.held) == (10, 0)


def test_a_task_waits_for_credits_by_a_countdown_and_is_charged_once(redis_fleet: Fleet) -> None:
    """Given no queues that hand over, then what waits comes back all the same, with the counts of its waits (L3)."""
    fleet = redis_fleet
    fleet.client("acme", 5)
    fleet.consumer(wait=False)
    fleet.worker()
    result = fleet.app.signature("patient", args=["acme", 7]).apply_async()
    wait_until(lambda: len(deliveries(fleet.directory, result.id)) >= 3, "it was put off twice")
    assert fleet.holds("acme") == []

    assert admin.grant(fleet.settings, "acme", 5, key="second")[1]

    assert result.get(timeout=120) == 7
    told = deliveries(fleet.directory, result.id)
    assert [delivery["counts"] for delivery in told] == [[number, number] for number in range(len(told))]
    assert {delivery["retries"] for delivery in told} == {0}
    assert noted(fleet.directory, "ran.acme") == ["7"]
    assert len(fleet.wait_for_rows(1)) == 1
    assert fleet.balance("acme").spent == 10
