"""The queues in which deliveries wait, on a real RabbitMQ: none is lost, and each message comes back as it was."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import celery
import kombu
import pytest

from billing.core.errors import Unreachable
from billing.core.settings import Settings
from billing.embedded.rabbitmq import RabbitMQ
from billing.events.task_message import TaskMessage
from billing.task import wait_queues
from billing.task.wait_queues import PAUSE_SECONDS, WaitQueues
from tests.amqp import MovedClock
from tests.proxy import in_front_of
from tests.waiting import LIMIT_SECONDS, wait_until

pytestmark = pytest.mark.integration

#: Far above any bound of a publish here, and far below a wait without end.
BOUND_SECONDS = 60.0
AGAIN = TaskMessage(
    exchange="",
    routing_key="tasks",
    body=b"[[], {}, {}]",
    content_type="application/json",
    content_encoding="utf-8",
    headers={"task": "work", "id": "one", "eta": None, "billing_waits": 1},
    properties={"priority": 3, "correlation_id": "one", "reply_to": "answers", "delivery_mode": 2},
)


@contextmanager
def app_on(url: str, **options: Any) -> Iterator[celery.Celery]:
    """Make an app whose tasks are on a broker."""
    app = celery.Celery("waits", broker=url, set_as_current=False, broker_transport_options=options)
    try:
        yield app
    finally:
        app.close()


@contextmanager
def queues(timeout_seconds: float = 30.0, clock: MovedClock | None = None) -> Iterator[WaitQueues]:
    """Make what publishes. The broker of the usage events is another one, where nobody listens."""
    settings = Settings(broker_url="amqp://127.0.0.1:1//", publish_timeout_seconds=timeout_seconds)
    made = WaitQueues(settings, clock)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def channel(url: str) -> Iterator[Any]:
    """Open a channel with the queue `tasks`."""
    with kombu.Connection(url) as connection:
        made: Any = connection.channel()
        made.auto_decode = False
        made.queue_declare("tasks", durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
        yield made


def taken(channel: Any, count: int, queue: str = "tasks") -> list[Any]:
    """Wait until a queue has had so many messages, and take them."""
    found: list[Any] = []

    def take() -> bool:
        message = channel.basic_get(queue, no_ack=True)
        if message is not None:
            found.append(message)
        return len(found) >= count

    wait_until(take, f"{count} messages are back in {queue}")
    return found


def test_a_message_comes_back_to_its_exchange_under_its_own_routing_key_as_it_was(broker_url: str) -> None:
    """Given messages of the default exchange and of a topic, then each is back in its queue alone, with all it had."""
    topic = dataclasses.replace(AGAIN, exchange="work", routing_key="eu.slow", headers={**AGAIN.headers, "id": "two"})
    with app_on(broker_url, confirm_publish=True) as app, queues() as waits, channel(broker_url) as seen:
        seen.exchange_declare("work", "topic", durable=True, auto_delete=False)
        for name, pattern in (("slow", "*.slow"), ("fast", "*.fast")):
            seen.queue_declare(name, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
            seen.queue_bind(name, "work", pattern)

        waits.publish(app, AGAIN, 500)
        waits.publish(app, topic, 1_000)

        (first,), (second,) = taken(seen, 1), taken(seen, 1, "slow")
        assert bytes(first.body) == AGAIN.body
        assert AGAIN.headers.items() <= first.headers.items()
        assert AGAIN.properties.items() <= first.properties.items()
        assert (first.content_type, first.content_encoding) == ("application/json", "utf-8")
        assert (second.delivery_info["exchange"], second.delivery_info["routing_key"]) == ("work", "eu.slow")
        assert second.headers["id"] == "two"
        assert seen.basic_get("fast", no_ack=True) is None
        assert seen.basic_get("tasks", no_ack=True) is None


def test_queues_are_declared_once_per_connection_and_again_when_they_were_deleted(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a deleted queue, or exchange, then the message that finds it missing waits in a new one, once."""
    declared: list[str] = []
    declare = wait_queues._declare

    def noted(channel: Any, name: str, exchange: str, milliseconds: int) -> None:
        declared.append(name)
        declare(channel, name, exchange, milliseconds)

    monkeypatch.setattr(wait_queues, "_declare", noted)
    name = "billing.wait.queue.tasks.60000"
    with app_on(broker_url) as app, queues() as waits, channel(broker_url) as seen:
        for _ in range(50):
            waits.publish(app, AGAIN, 60_000)
        assert declared == [name]
        assert seen.queue_declare(name, passive=True).message_count == 50

        seen.queue_delete(name)
        waits.publish(app, AGAIN, 60_000)
        assert declared == [name] * 2
        assert seen.queue_declare(name, passive=True).message_count == 1

        seen.exchange_delete(name)
        waits.publish(app, AGAIN, 60_000)
        assert declared == [name] * 3
        assert seen.queue_declare(name, passive=True).message_count == 2


def test_messages_whose_queue_is_away_are_not_lost_and_hold_up_no_others(rabbitmq: RabbitMQ, broker_url: str) -> None:
    """L10: Given 40 without a queue to come back to, then they stay until there is one; others come back meanwhile."""
    nowhere = dataclasses.replace(AGAIN, routing_key="later")
    # How long RabbitMQ waits before it hands a message over once more.
    rabbitmq._call("ok = application:set_env(rabbit, dead_letter_worker_publisher_confirm_timeout, 500)")
    try:
        with app_on(broker_url) as app, queues() as waits, channel(broker_url) as seen:
            for _ in range(40):
                waits.publish(app, nowhere, 500)
            waits.publish(app, AGAIN, 500)
            taken(seen, 1)

            seen.queue_declare("later", durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
            taken(seen, 40, "later")
    finally:
        rabbitmq._call("ok = application:set_env(rabbit, dead_letter_worker_publisher_confirm_timeout, 180000)")


def test_a_connection_that_broke_while_idle_is_made_anew(broker_url: str) -> None:
    with in_front_of(broker_url) as (proxy, url), app_on(url) as app, queues() as waits, channel(broker_url) as seen:
        waits.publish(app, AGAIN, 500)
        proxy.cut()
        waits.publish(app, AGAIN, 500)
        assert len(taken(seen, 2)) == 2


def test_a_broker_that_hangs_costs_a_bounded_time_once_and_the_next_is_refused_at_once(broker_url: str) -> None:
    """L9: nothing waits for ever, and a thousand deliveries do not try one after another."""
    clock = MovedClock()
    with (
        in_front_of(broker_url) as (proxy, url),
        app_on(url) as app,
        queues(0.5, clock) as waits,
        channel(broker_url) as seen,
    ):
        wait_until(lambda: _published(waits, app), "a first message waits")
        clock.move(PAUSE_SECONDS)
        proxy.freeze()
        began = time.monotonic()
        with pytest.raises(Unreachable, match="confirm"):
            waits.publish(app, AGAIN, 500)
        assert time.monotonic() - began < BOUND_SECONDS
        assert waits._link is None
        with pytest.raises(Unreachable, match="confirm"):
            waits.publish(app, AGAIN, 500)
        assert waits._link is None
        proxy.reopen()
        clock.move(PAUSE_SECONDS)
        wait_until(lambda: _published(waits, app, clock), "the broker is back")
        taken(seen, 2)


def test_a_queue_that_the_broker_refuses_is_left_for_a_while_and_others_are_not(broker_url: str) -> None:
    """L10: Given a wait queue with other arguments than ours, then its own messages are refused, once a second."""
    others, clock = dataclasses.replace(AGAIN, routing_key="spoilt"), MovedClock()
    with app_on(broker_url) as app, queues(clock=clock) as waits, channel(broker_url) as seen:
        seen.queue_declare("billing.wait.queue.spoilt.500", durable=True, auto_delete=False)
        for _ in range(2):
            with pytest.raises(Unreachable, match="PRECONDITION_FAILED"):
                waits.publish(app, others, 500)
            waits.publish(app, AGAIN, 500)
            link = waits._link
            with pytest.raises(Unreachable, match="PRECONDITION_FAILED"):
                waits.publish(app, others, 500)
            assert waits._link is link, "it was not tried again at once"
            clock.move(PAUSE_SECONDS)
        taken(seen, 2)


def test_a_memory_alarm_is_bounded_and_messages_wait_again_after_it(rabbitmq: RabbitMQ, broker_url: str) -> None:
    """RabbitMQ takes no messages: each try is refused within its bound, and later all is well."""
    clock = MovedClock()
    with app_on(broker_url) as app, queues(1.0, clock) as waits:
        wait_until(lambda: _published(waits, app, clock), "a first message waits")
        rabbitmq._call("ok = vm_memory_monitor:set_vm_memory_high_watermark(0.00001)")
        try:
            wait_until(lambda: not _published(waits, app, clock), "the broker blocks")
        finally:
            rabbitmq._call("ok = vm_memory_monitor:set_vm_memory_high_watermark(0.7)")
        wait_until(lambda: _published(waits, app, clock), "the broker is back")


@pytest.mark.timeout(2 * LIMIT_SECONDS)
def test_no_broker_is_named_without_its_password() -> None:
    with (
        app_on("amqp://user:secret@127.0.0.1:1//;amqp://user:secret@127.0.0.1:2//") as app,
        queues() as waits,
        pytest.raises(Unreachable, match=r"127\.0\.0\.1") as error,
    ):
        waits.publish(app, AGAIN, 500)
    assert "secret" not in str(error.value)


def _published(waits: WaitQueues, app: celery.Celery, clock: MovedClock | None = None) -> bool:
    if clock is not None:
        clock.move(PAUSE_SECONDS)
    try:
        waits.publish(app, AGAIN, 500)
    except Unreachable:
        return False
    return True
