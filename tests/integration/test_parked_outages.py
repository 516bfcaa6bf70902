"""What becomes of parked tasks when processes die and servers go: all of them start, each is charged once (L3, L6)."""

from __future__ import annotations

import pytest
import redis

from billing import admin
from billing.embedded.rabbitmq import RabbitMQ
from tests.fleet.harness import Fleet
from tests.fleet.tasks import noted
from tests.integration.parking import PARKING, rows, wait_parked
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

#: The file that asks a starter to die, see tests/fleet/killed_starter.py.
KILL = "kill.mark"


@pytest.fixture
def fleet_settings() -> dict[str, str]:
    return PARKING


def test_all_survive_a_restart_of_everything(rabbitmq: RabbitMQ, fleet: Fleet, redis_url: str, broker_url: str) -> None:
    """Given parked tasks, when all processes end, Redis is emptied and RabbitMQ loses all, then they start (L6)."""
    client = fleet.client("acme", 5)
    worker = fleet.worker(children=1)
    results = [fleet.send("ok", client, number) for number in range(3)]
    wait_parked(fleet, client, 3)
    worker.stop(20)
    with redis.Redis.from_url(redis_url) as emptied:
        emptied.flushall()
    name = broker_url.rsplit("/", 1)[1]
    rabbitmq.remove_virtual_host(name)
    assert rabbitmq.add_virtual_host(name) == broker_url

    admin.grant(fleet.settings, client, 25, key="more")
    fleet.consumer(wait=False)
    fleet.worker("second", children=1)

    assert [result.get(timeout=120) for result in results] == [0, 1, 2]
    assert len(fleet.wait_for_rows(3, client)) == 3
    wait_until(lambda: fleet.balance(client).spent == 30, "the bucket has paid")
    assert fleet.balance(client).held == 0


def test_a_starter_killed_between_publish_and_mark_charges_once(fleet: Fleet) -> None:
    """Given a starter that dies by SIGKILL after a publish, when the next starts it again, then one charge (L3)."""
    client = fleet.client("acme", 5)
    worker = fleet.worker(children=1)
    result = fleet.send("gated", client, "gate")
    wait_parked(fleet, client, 1)
    # Nobody may run the first copy, and say so, before the second is published.
    worker.stop(20)
    (fleet.directory / KILL).touch()
    options = ("--fulfillment", "-P", "solo", "-n", "killed@test", "-l", "INFO")
    killed = fleet.run_module("killed", "celery", "-A", "tests.fleet.killed_starter", "worker", *options)
    fleet.wait_ready("killed")
    admin.grant(fleet.settings, client, 5, key="more")
    wait_until(lambda: not killed.running, "it died")
    assert [row["state"] for row in rows(fleet, client)] == ["waiting"]

    fleet.consumer()
    wait_parked(fleet, client, 1, "started")
    (fleet.directory / "gate").touch()
    fleet.worker("second", children=1)

    assert result.get(timeout=120) == 0
    wait_until(lambda: len(noted(fleet.directory, "gate.started")) == 2, "both copies ran")
    assert len(fleet.wait_for_rows(1, client)) == 1
    wait_until(lambda: not fleet.holds(client), "no hold is left")
    balance = fleet.balance(client)
    assert (balance.available, balance.held, balance.spent) == (0, 0, 10)
