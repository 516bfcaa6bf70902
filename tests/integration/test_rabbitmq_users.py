"""Each kind of process does its work as its own RabbitMQ user, and none does what is another's.

The definitions of `deploy/rabbitmq` are loaded into a real node, under names of this test's own.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import kombu
import pytest
from amqp.exceptions import AccessRefused, NotAllowed

from billing.core.settings import Settings
from billing.embedded.rabbitmq import RabbitMQ, programs
from billing.embedded.server import LOOPBACK
from billing.embedded.stack import Stack
from billing.events.publisher import Publisher
from billing.fulfillment.consumer import Consumer
from billing.observability.overview.broker_side import BrokerSide
from deploy.rabbitmq.definitions import PERMISSIONS, TASKS, USAGE, definitions
from tests.fleet.fixtures import make_fleet
from tests.integration.consuming import events, prepare, rows, running, send, until_rows, usage_log

pytestmark = pytest.mark.integration

PASSWORD = "hunter2"
QUEUE = "billing.usage.0"

#: Does something on a channel that a user may not.
Deed = Callable[[Any], object]


@dataclasses.dataclass(frozen=True)
class Node:
    """A node with the users."""

    prefix: str
    port: int

    def url(self, user: str, host: str) -> str:
        """Return a user's address of a virtual host."""
        return f"amqp://{self.prefix}{user}:{PASSWORD}@{LOOPBACK}:{self.port}/{self.prefix}{host}"


@pytest.fixture(scope="module")
def node(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Load the definitions as their page says, and take them away again."""
    if stack.rabbitmq is None:
        pytest.skip("RabbitMQ is not installed")
    server, prefix = stack.rabbitmq, f"u{uuid.uuid4().hex[:8]}-"
    path = tmp_path_factory.mktemp("users") / "definitions.json"
    path.write_text(json.dumps(definitions(dict.fromkeys(PERMISSIONS, PASSWORD), prefix=prefix)))
    _control(server, "import_definitions", str(path))
    yield Node(prefix=prefix, port=server.port)
    for host in (TASKS, USAGE):
        server.remove_virtual_host(prefix + host)
    for user in PERMISSIONS:
        server._call(f'ok = rabbit_auth_backend_internal:delete_user(<<"{prefix}{user}">>, <<"tests">>)')


def _control(server: RabbitMQ, *arguments: str) -> None:
    command = [str(programs() / "rabbitmqctl"), "-n", "billing@localhost", *arguments]
    environ = server._environment(distribution_port=0)
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def settings(node: Node, database_url: str) -> Settings:
    """Return the settings of the consumer: it has declared the queues that others only publish to."""
    made = prepare(node.url("fulfillment", USAGE), database_url, usage_exchange="billing.usage", shards=4)
    consumer = Consumer(made, usage_log(made))
    with running(consumer):
        send(made, events(1))
        until_rows(made, 3)
    return made


def as_user(settings: Settings, node: Node, user: str) -> Settings:
    """Return the settings of another user of the usage events."""
    return dataclasses.replace(settings, broker_url=node.url(user, USAGE))


def test_a_worker_publishes_and_the_exporter_and_flower_count_what_waits(settings: Settings, node: Node) -> None:
    """A worker declares nothing: what it may not do is not asked of it again for each event."""
    send(as_user(settings, node, "worker"), events(2, first=1))
    for user in ("exporter", "flower", "operator"):
        with closing(BrokerSide(as_user(settings, node, user))) as side:
            assert sum(queue.events for queue in side.read()) == 6, user
    with running(Consumer(settings, usage_log(settings))):
        until_rows(settings, 9)


def test_a_worker_that_comes_first_publishes_nothing_and_loses_nothing(node: Node, database_url: str) -> None:
    """Without queues it is told that nobody takes its event, which then stays in its outbox."""
    unknown = prepare(node.url("worker", USAGE), database_url, usage_exchange="nowhere", publish_timeout_seconds=5.0)
    publisher = Publisher(unknown)
    with pytest.raises(Exception, match=r"nowhere|billing_broker_url"):
        publisher.publish(0, b"{}", shard=0, entry_id=None)
    publisher.close()


_DEEDS: dict[str, Deed] = {
    "read usage": lambda channel: channel.basic_consume(QUEUE, no_ack=True),
    "get usage": lambda channel: channel.basic_get(QUEUE),
    "empty usage": lambda channel: channel.queue_purge(QUEUE),
    "delete usage": lambda channel: channel.queue_delete(QUEUE),
    "take usage elsewhere": lambda channel: channel.queue_bind("mine", "billing.usage", "#"),
    "declare": lambda channel: channel.queue_declare("mine"),
    "publish usage": lambda channel: _publish(channel, "billing.usage", QUEUE),
    "publish to the queue": lambda channel: _publish(channel, "", QUEUE),
    "send a task": lambda channel: _publish(channel, "", "tasks"),
    "take a task": lambda channel: channel.basic_consume("tasks", no_ack=True),
    "take maintenance": lambda channel: channel.basic_consume("billing.maintenance", no_ack=True),
    "listen to all events": lambda channel: channel.queue_bind("tasks", "celeryev", "#"),
}


def _publish(channel: Any, exchange: str, routing_key: str) -> None:
    channel.confirm_select()
    channel.basic_publish_confirm(channel.prepare_message(b"{}"), exchange, routing_key)


@pytest.mark.parametrize(
    ("user", "host", "deeds"),
    [
        (
            "worker",
            USAGE,
            "read usage,get usage,empty usage,delete usage,take usage elsewhere,declare,publish to the queue",
        ),
        ("worker", TASKS, "take maintenance"),
        ("fulfillment", USAGE, "declare,publish to the queue"),
        *((user, USAGE, "read usage,get usage,publish usage,publish to the queue,delete usage,declare")
          for user in ("flower", "exporter")),
        ("flower", TASKS, "send a task,take a task,take maintenance"),
        ("operator", USAGE, "read usage,get usage,empty usage"),
        ("submitter", TASKS, "take maintenance,declare,listen to all events"),
        ("beat", TASKS, "take a task,declare"),
    ],
)  # fmt: skip
def test_no_user_does_what_is_anothers(settings: Settings, node: Node, user: str, host: str, deeds: str) -> None:
    del settings  # the queues are there
    with kombu.Connection(node.url("fulfillment", TASKS)) as connection:
        channel: Any = connection.channel()
        channel.exchange_declare("celeryev", "topic", durable=True, auto_delete=False)
        for name in ("tasks", "billing.maintenance"):
            channel.queue_declare(name, durable=True, auto_delete=False)
    with kombu.Connection(node.url(user, host)) as connection:
        for deed in deeds.split(","):
            with pytest.raises(AccessRefused):
                _DEEDS[deed](connection.channel())


@pytest.mark.parametrize("user", ["submitter", "beat"])
def test_who_sends_tasks_has_no_way_to_usage_events(settings: Settings, node: Node, user: str) -> None:
    """Not through the default exchange either, to which whoever sends a task may write: it is another virtual host."""
    del settings
    with pytest.raises(NotAllowed), kombu.Connection(node.url(user, USAGE)) as connection:
        connection.ensure_connection(max_retries=0)


def test_a_fleet_of_such_users_charges_what_a_submitter_sends(
    node: Node, redis_url: str, result_url: str, database_url: str, tmp_path: Path
) -> None:
    """End to end: two virtual hosts, `CELERY_BROKER_URL` for tasks and `BILLING_BROKER_URL` for usage events."""

    def brokers(user: str) -> dict[str, str]:
        return {"CELERY_BROKER_URL": node.url(user, TASKS), "BILLING_BROKER_URL": node.url(user, USAGE)}

    # The test's own app is the submitter.
    servers = {
        "BILLING_REDIS_URL": redis_url,
        "BILLING_RESULT_URL": result_url,
        "BILLING_BROKER_URL": node.url("submitter", TASKS),
        "BILLING_DATABASE_URL": database_url,
    }
    with make_fleet(servers, tmp_path) as fleet:
        fleet.client("acme", 100)
        fleet.start("consumer", pool="solo", options=("--fulfillment",), environment=brokers("fulfillment"))
        fleet.start("worker", environment=brokers("worker"))
        fleet.start("watching", pool="solo", options=("-E", "-Q", "other"), environment=brokers("worker"))
        for name in ("consumer", "worker", "watching"):
            fleet.wait_ready(name)
        results = [fleet.send("ok", "acme", number) for number in range(5)]
        assert [isinstance(result.get(timeout=120), int) for result in results] == [True] * 5
        assert len(fleet.wait_for_rows(5)) == 5
        assert rows(fleet.settings) == 5
        assert "ACCESS_REFUSED" not in (tmp_path / "worker.log").read_text("utf-8")
