"""The usage queues on a real broker: declared the same by everybody, one writer at a time, nothing lost by counting."""

from __future__ import annotations

from contextlib import closing
from urllib.parse import urlsplit

import amqp
import kombu
import pytest

from billing.connections import broker
from billing.core.errors import Unreachable
from billing.embedded.rabbitmq import RabbitMQ
from billing.events import topology
from billing.events.publisher import Publisher
from billing.fulfillment.batch import Received
from billing.fulfillment.intake import Intake
from tests.amqp import channel_of, messages, settings_for, waiting
from tests.waiting import wait_until


def test_given_a_topology_when_declared_again_then_nothing_changes(broker_url: str) -> None:
    """Every process declares; messages that are there stay."""
    settings = settings_for(broker_url)
    with channel_of(settings) as channel:
        channel.basic_publish(channel.prepare_message(b"kept"), settings.usage_exchange, f"{settings.usage_exchange}.1")
        topology.declare(settings, channel)
    assert (waiting(settings, 0), waiting(settings, 1)) == (0, 1)


def test_given_a_queue_of_another_kind_when_declared_then_it_is_refused(broker_url: str) -> None:
    """A queue without single active consumer would give one client two writers: it is not used silently."""
    settings = settings_for(broker_url)
    with kombu.Connection(settings.broker_url) as connection:
        channel = connection.channel()
        kombu.Queue(topology.queue_name(settings, 0), durable=True)(channel).declare()
        with pytest.raises(amqp.exceptions.PreconditionFailed):
            topology.declare(settings, channel)


def test_given_two_consumers_of_a_queue_then_only_one_receives_until_it_is_gone(broker_url: str) -> None:
    """One client's events have one writer (single active consumer), and another takes over."""
    settings = settings_for(broker_url)
    received: dict[str, list[Received]] = {"first": [], "second": []}

    def pulled(*intakes: Intake) -> int:
        for intake in intakes:
            intake.pull(0.02, lambda: False)
        return len(received["first"]) + len(received["second"])

    with (
        closing(Intake(settings, [0], received["first"].append)) as first,
        closing(Intake(settings, [0], received["second"].append)) as second,
    ):
        first.open()
        second.open()
        with channel_of(settings) as channel:
            for _ in range(10):
                channel.basic_publish(channel.prepare_message(b"x"), "", topology.queue_name(settings, 0))
        wait_until(lambda: pulled(first, second) == 10, "the messages have been sent")
        assert received["second"] == []
        first.close()
        wait_until(lambda: pulled(second) == 20, "the second one gets what was not acked")


def test_given_a_policy_that_limits_queues_then_what_is_too_much_is_refused_and_nothing_dropped(
    broker_url: str, rabbitmq: RabbitMQ
) -> None:
    """By itself RabbitMQ would drop the oldest events, which it has confirmed: what it refuses stays in the outbox."""
    settings = settings_for(broker_url)
    publisher = Publisher(settings)
    publisher.publish(0, b"0", shard=0, entry_id=None)
    host = urlsplit(broker_url).path.removeprefix("/")
    limit = f'<<"{host}">>, <<"short">>, <<".*">>, [{{<<"max-length">>, 3}}], 0, <<"queues">>, <<"test">>'
    rabbitmq._call(f"ok = rabbit_policy:set({limit})")
    confirmed = [b"0"]

    def is_refused() -> bool:
        try:
            publisher.publish(0, b"%d" % len(confirmed), shard=0, entry_id=None)
        except Unreachable:
            return True
        confirmed.append(b"%d" % len(confirmed))
        return False

    wait_until(is_refused, "the queue is full")
    publisher.close()
    assert [bytes(message.body) for message in messages(settings, 0)][: len(confirmed)] == confirmed


def test_given_thirty_disconnects_then_no_message_is_dropped(broker_url: str) -> None:
    """A long outage counts up deliveries; the limit is as good as never."""
    settings = settings_for(broker_url)
    with channel_of(settings) as channel:
        for number in range(5):
            channel.basic_publish(channel.prepare_message(b"%d" % number), "", topology.queue_name(settings, 0))
    for _ in range(30):
        received: list[Received] = []
        intake = Intake(settings, [0], received.append)
        intake.open()
        for _ in range(100):
            if len(received) == 5:
                break
            intake.pull(0.1, lambda: len(received) == 5)  # noqa: B023 -- called within the round
        assert len(received) == 5
        intake.throw_away()
    wait_until(lambda: waiting(settings, 0) == 5, "all are ready again")
    assert sorted(message.body for message in messages(settings, 0)) == [b"0", b"1", b"2", b"3", b"4"]


def test_given_the_redis_transport_then_the_same_code_sends_and_receives(result_url: str) -> None:
    """On a stack without RabbitMQ the same code runs over kombu's Redis transport."""
    settings = settings_for(result_url)
    assert not broker.confirms(settings)
    received: list[Received] = []
    intake = Intake(settings, [0, 1], received.append)
    intake.open()
    intake.close()
    assert received == []
