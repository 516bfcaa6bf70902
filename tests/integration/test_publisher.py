"""The publisher on a real RabbitMQ: what it confirms is in a queue, and no fault of the broker holds a worker up."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence

import pytest
import redis

from billing.core.errors import Unreachable
from billing.core.settings import Settings
from billing.embedded.rabbitmq import RabbitMQ
from billing.events import topology
from billing.events.links import Outgoing
from billing.events.publisher import PAUSE_SECONDS_MAX, PartlyPublished, Publisher
from tests.amqp import MovedClock, channel_of, event_body, messages, settings_for, waiting
from tests.proxy import in_front_of
from tests.waiting import wait_until

#: Far above any bound of a publish here, and far below a wait without end.
BOUND_SECONDS = 60.0


def is_refused(publisher: Publisher) -> bool:
    """Whether a publish raises `Unreachable`, which it does in bounded time."""
    started = time.monotonic()
    try:
        publish(publisher)
    except Unreachable:
        assert time.monotonic() - started < BOUND_SECONDS
        return True
    return False


def seconds_of(call: Callable[[], object]) -> float:
    """Return how long a call takes that must raise `Unreachable`."""
    started = time.monotonic()
    with pytest.raises(Unreachable):
        call()
    return time.monotonic() - started


def tries_of(publisher: Publisher) -> list[int]:
    """Return the list of a publisher's tries to reach the broker from now on: whoever fails fast makes none."""
    tries: list[int] = []
    attempt = publisher._try

    def noted(queue_number: int, window: Sequence[Outgoing]) -> tuple[int, Unreachable | None]:
        tries.append(queue_number)
        return attempt(queue_number, window)

    publisher._try = noted  # type: ignore[method-assign]
    return tries


def publish(publisher: Publisher, body: bytes = b"{}") -> None:
    """Publish one event to queue 0."""
    publisher.publish(0, body, shard=2, entry_id="17-0")


def test_given_a_publish_that_returned_then_the_queue_has_the_very_bytes(broker_url: str) -> None:
    """L3: nothing between settle and log encodes the event again, and it survives a restart of the broker."""
    settings = settings_for(broker_url)
    publisher = Publisher(settings)
    body = event_body("ärger")
    publisher.publish(1, body, shard=3, entry_id="17-0")
    publisher.publish(1, b"\xff not text", shard=3, entry_id=None)
    first, second = messages(settings, 1)
    assert (bytes(first.body), bytes(second.body)) == (body, b"\xff not text")
    assert first.headers == {"billing_shard": 3, "billing_entry": "17-0"}
    assert second.headers == {"billing_shard": 3}
    assert first.properties["delivery_mode"] == 2
    assert first.properties["content_type"] == "application/json"
    assert first.properties["type"] == "billing.usage.v1"
    publisher.close()


def test_given_eight_threads_then_every_confirmed_event_is_there_once(broker_url: str) -> None:
    """One channel, many threads: no confirm is taken for another's."""
    settings = settings_for(broker_url)
    publisher = Publisher(settings)

    def work(thread: int) -> None:
        for number in range(50):
            publisher.publish(0, b"%d-%d" % (thread, number), shard=0, entry_id=None)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bodies = [bytes(message.body) for message in messages(settings, 0)]
    assert sorted(bodies) == sorted(b"%d-%d" % (thread, number) for thread in range(8) for number in range(50))
    publisher.close()


def test_given_a_batch_larger_than_the_window_then_all_of_it_is_confirmed_in_order(broker_url: str) -> None:
    """The relay's way: many events, few waits, the order of the outbox."""
    settings = settings_for(broker_url)
    publisher = Publisher(settings)
    publisher.publish_batch(0, [Outgoing(body=b"%d" % number, shard=0, entry_id=None) for number in range(1_203)])
    assert [int(bytes(message.body)) for message in messages(settings, 0)] == list(range(1_203))
    publisher.close()


def test_given_the_queue_is_deleted_then_the_event_is_unroutable_and_the_next_publish_declares_it(
    broker_url: str,
) -> None:
    """A returned message counts as unconfirmed; the broker is well, so nobody has to wait."""
    settings = settings_for(broker_url)
    publisher = Publisher(settings)
    publish(publisher)
    with channel_of(settings) as channel:
        channel.queue_delete(topology.queue_name(settings, 0))
        with pytest.raises(PartlyPublished, match="no queue takes") as caught:
            publish(publisher)
        assert caught.value.confirmed == 0
    publish(publisher)
    assert waiting(settings, 0) == 1
    publisher.close()


def test_given_the_exchange_is_deleted_then_the_event_is_published_all_the_same(broker_url: str) -> None:
    """A channel that RabbitMQ closed is thrown away; a new connection declares what is missing."""
    settings = settings_for(broker_url)
    publisher = Publisher(settings)
    publish(publisher)
    with channel_of(settings) as channel:
        channel.exchange_delete(settings.usage_exchange)
        publish(publisher)
    assert waiting(settings, 0) == 2
    publisher.close()


def test_given_a_connection_that_broke_while_idle_then_the_next_publish_succeeds(broker_url: str) -> None:
    """RabbitMQ was restarted: the first event after it does not have to wait for the relay."""
    with in_front_of(broker_url) as (proxy, url):
        settings = settings_for(url)
        publisher = Publisher(settings)
        publish(publisher)
        proxy.cut()
        publish(publisher)
        assert waiting(settings, 0) == 2
        publisher.close()


def test_given_the_broker_is_down_then_publishing_fails_at_once_and_comes_back(broker_url: str) -> None:
    """Events wait in the outbox while RabbitMQ is away; tasks do not."""
    clock = MovedClock()
    with in_front_of(broker_url) as (proxy, url):
        settings = settings_for(url, publish_timeout_seconds=30.0)
        publisher = Publisher(settings, clock)
        publish(publisher)
        proxy.shut()
        tries = tries_of(publisher)
        assert seconds_of(lambda: publish(publisher)) < settings.publish_timeout_seconds
        proxy.reopen()
        seconds_of(lambda: publish(publisher))
        assert len(tries) == 2, "the old connection and a new one; then it is given time"
        clock.move(PAUSE_SECONDS_MAX)
        publish(publisher)
        assert waiting(settings, 0) == 2
        publisher.close()


def test_given_a_broker_that_hangs_then_a_publish_is_bounded_and_the_others_fail_fast(broker_url: str) -> None:
    """L9: no confirm comes, no close is answered, and nothing hangs."""
    clock = MovedClock()
    with in_front_of(broker_url) as (proxy, url):
        settings = settings_for(url, publish_timeout_seconds=0.5)
        publisher = Publisher(settings, clock)
        publish(publisher)
        proxy.freeze()
        tries = tries_of(publisher)
        assert settings.publish_timeout_seconds <= seconds_of(lambda: publish(publisher)) < BOUND_SECONDS
        seconds_of(lambda: publish(publisher))
        assert len(tries) == 1
        clock.move(PAUSE_SECONDS_MAX)
        # This time it is a new connection that gets no answer.
        assert seconds_of(lambda: publish(publisher)) < BOUND_SECONDS
        clock.move(PAUSE_SECONDS_MAX)
        proxy.reopen()
        publish(publisher)
        # What was not confirmed may have arrived: the log knows an event that comes twice.
        wait_until(lambda: waiting(settings, 0) in {2, 3}, "the events are there")
        publisher.close()


def test_given_threads_behind_one_that_hangs_then_each_of_them_is_bounded(broker_url: str) -> None:
    """L9: the lock is waited for no longer than a publish."""
    with in_front_of(broker_url) as (proxy, url):
        settings = settings_for(url, publish_timeout_seconds=0.5)
        publisher = Publisher(settings)
        publish(publisher)
        proxy.freeze()
        took: list[float] = []
        threads = [
            threading.Thread(target=lambda: took.append(seconds_of(lambda: publish(publisher)))) for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert len(took) == 6
        assert max(took) < BOUND_SECONDS


def test_given_a_large_event_and_a_broker_that_does_not_read_then_the_write_is_bounded(broker_url: str) -> None:
    """L9: full socket buffers do not hang a worker either."""
    with in_front_of(broker_url) as (proxy, url):
        settings = settings_for(url, publish_timeout_seconds=0.5)
        publisher = Publisher(settings)
        publish(publisher)
        proxy.freeze()
        assert seconds_of(lambda: publish(publisher, b"x" * 30_000_000)) < BOUND_SECONDS


def test_given_a_memory_alarm_then_tasks_go_on_and_events_flow_again_after_it(
    rabbitmq: RabbitMQ, broker_url: str
) -> None:
    """RabbitMQ blocked: each publish is bounded, nothing hangs, and later all is well."""
    clock = MovedClock()
    settings = settings_for(broker_url, publish_timeout_seconds=1.0)
    publisher = Publisher(settings, clock)
    publish(publisher)
    rabbitmq._call("ok = vm_memory_monitor:set_vm_memory_high_watermark(0.00001)")
    try:
        # The alarm comes to a connection a moment after it was raised.
        wait_until(lambda: is_refused(publisher), "the broker blocks")
        tries = tries_of(publisher)
        seconds_of(lambda: publish(publisher))
        assert tries == []
        clock.move(PAUSE_SECONDS_MAX)
        assert seconds_of(lambda: publish(publisher)) < BOUND_SECONDS
        assert len(tries) == 1
    finally:
        rabbitmq._call("ok = vm_memory_monitor:set_vm_memory_high_watermark(0.7)")
    clock.move(PAUSE_SECONDS_MAX)
    publish(publisher)
    assert waiting(settings, 0) >= 2
    publisher.close()


def test_given_an_interruption_in_the_middle_of_a_publish_then_the_channel_is_not_used_again(broker_url: str) -> None:
    """A soft time limit can strike anywhere: a confirm that was not read must not confirm the next event."""
    with in_front_of(broker_url) as (proxy, url):
        settings = settings_for(url)
        publisher = Publisher(settings)
        publish(publisher)
        link = publisher._link
        assert link is not None
        proxy.freeze()

        class SoftLimit(Exception):
            pass

        def interrupt(*_: object) -> None:
            raise SoftLimit

        link.publish = interrupt  # type: ignore[method-assign, assignment]
        with pytest.raises(SoftLimit):
            publish(publisher)
        assert publisher._link is None
        proxy.reopen()
        publish(publisher)
        publisher.close()


@pytest.mark.parametrize("url", ["amqp://user:secret@127.0.0.1:1//", "redis://:secret@127.0.0.1:1/0"])
def test_given_no_broker_then_the_message_names_the_setting_and_no_password(url: str) -> None:
    """Passwords never show."""
    settings = dataclasses.replace(Settings(), broker_url=url)
    with pytest.raises(Unreachable) as caught:
        publish(Publisher(settings))
    assert str(caught.value).startswith("billing_broker_url: ")
    assert "secret" not in str(caught.value)


def test_given_the_redis_transport_then_events_arrive_though_its_bindings_were_flushed(result_url: str) -> None:
    """Without RabbitMQ an unroutable message would vanish silently; ours goes straight to its queue."""
    settings = settings_for(result_url)
    publisher = Publisher(settings)
    publish(publisher)
    with redis.Redis.from_url(result_url) as client:
        client.flushall()
        publish(publisher)
        assert client.llen(topology.queue_name(settings, 0)) == 1
    publisher.close()
