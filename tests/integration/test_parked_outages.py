"""What becomes of parked tasks when processes die and servers go: all of them start, each is charged once (L3, L6)."""

from __future__ import annotations

import signal

import kombu
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


def test_all_survive_the_loss_of_everything_but_postgresql_and_a_starter_that_dies(
    rabbitmq: RabbitMQ, fleet: Fleet, redis_url: str, broker_url: str
) -> None:
    """Given parked tasks, when all that is not PostgreSQL goes, then they start; twice published is once charged (L3).

    The starter that publishes them first dies by SIGKILL before it can say so.
    """
    client = fleet.client("acme", 5)
    worker = fleet.worker(children=1)
    results = [fleet.send("gated", client, f"gate-{number}") for number in range(3)]
    wait_parked(fleet, client, 3)
    worker.stop(20)
    with redis.Redis.from_url(redis_url) as emptied:
        emptied.flushall()
    name = broker_url.rsplit("/", 1)[1]
    rabbitmq.remove_virtual_host(name)
    assert rabbitmq.add_virtual_host(name) == broker_url
    with kombu.Connection(broker_url) as connection:
        fleet.app.amqp.queues["tasks"](connection.default_channel).declare()

    admin.grant(fleet.settings, client, 25, key="more")
    (fleet.directory / KILL).touch()
    options = ("--fulfillment", "-P", "solo", "-n", "killed@test", "-l", "INFO")
    killed = fleet.run_module("killed", "celery", "-A", "tests.fleet.killed_starter", "worker", *options)
    wait_until(lambda: not killed.running, "it died")
    assert killed.returncode == 128 + signal.SIGKILL
    assert [row["state"] for row in rows(fleet, client)] == ["waiting"] * 3
    # Nobody runs the first copies, and says so, before the second ones are there.
    fleet.consumer()
    wait_parked(fleet, client, 3, "started")
    for number in range(3):
        (fleet.directory / f"gate-{number}").touch()
    fleet.worker("second", children=1)

    assert [result.get(timeout=120) for result in results] == [0, 0, 0]
    wait_until(lambda: all(len(noted(fleet.directory, f"gate-{n}.started")) == 2 for n in range(3)), "all copies ran")
    assert len(fleet.wait_for_rows(3, client)) == 3
    wait_until(lambda: not fleet.holds(client), "no hold is left")
    balance = fleet.balance(client)
    assert (balance.available, balance.held, balance.spent) == (0, 0, 30)
