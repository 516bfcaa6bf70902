"""The relay between a real Redis and a real broker: each outbox entry is published, and leaves only when it is safe."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from urllib.parse import urlsplit

import pytest

from billing.connections import redis as redis_connection
from billing.core.errors import Unreachable
from billing.core.ids import new_settlement_id, run_id
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.credits.buckets import Buckets
from billing.credits.values import Settlement, SettleOutcome
from billing.embedded.rabbitmq import RabbitMQ
from billing.events import topology
from billing.events.links import Outgoing
from billing.events.publisher import PAUSE_SECONDS_MAX, Publisher
from billing.events.relay import AGAIN_SECONDS, Relay
from billing.events.usage_event import EventHead, UsageEvent, UsageLine, encode_fragment, encode_head
from billing.fulfillment.decoder import decode
from tests.amqp import MovedClock, channel_of, messages, settings_for, waiting
from tests.proxy import in_front_of
from tests.waiting import wait_until

CLIENTS = ("ada", "bob", "cleo", "dan", "eve")


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    """Close what a test opened."""
    with ExitStack() as stack:
        yield stack


def publisher_of(settings: Settings, cleanup: ExitStack, clock: MovedClock | None = None) -> Publisher:
    """Return a publisher that is closed after the test."""
    return cleanup.enter_context(closing(Publisher(settings, clock)))


def buckets_of(settings: Settings, cleanup: ExitStack) -> Buckets:
    """Return verified buckets with a bucket for each client."""
    buckets = Buckets(
        cleanup.enter_context(closing(redis_connection.connect(settings))),
        shards=settings.shards,
        lease_seconds=60.0,
        settled_retention_seconds=3_600.0,
        outbox_entries_max=10_000,
    )
    for shard in range(settings.shards):
        assert buckets.verify(shard, expected=None)
    for client_id in CLIENTS:
        buckets.open_client(client_id)
        buckets.grant(client_id, 1, 1_000_000)
    return buckets


def settle(buckets: Buckets, client_id: str, number: int) -> None:
    """Settle run `number` of a client: one entry more in the outbox."""
    identifier = run_id(client_id, str(number), nesting=0, nonce="", at_milliseconds=1_790_000_000_000)
    head = EventHead(
        run_id=identifier,
        client_id=client_id,
        correlation_id=str(number),
        root_id="",
        task="t",
        attempt=1,
        submitted_at=None,
        price_version=1,
    )
    reply = buckets.settle(
        Settlement(
            run_id=identifier,
            client_id=client_id,
            sku="page",
            settlement_id=new_settlement_id(),
            head=encode_head(head),
            fragments=(encode_fragment(UsageLine(sku="page", quantity=1, credits=2)),),
            amounts=(2,),
        )
    )
    assert reply.outcome is SettleOutcome.SETTLED


def depth(settings: Settings, buckets: Buckets) -> int:
    """Return how many entries wait in all outboxes."""
    return sum(buckets.outbox_depth(shard) for shard in range(settings.shards))


def published(settings: Settings) -> list[UsageEvent]:
    """Take every event out of the usage queues."""
    bodies = [bytes(each.body) for number in range(settings.usage_queues) for each in messages(settings, number)]
    events = [decode(body) for body in bodies]
    assert all(isinstance(event, UsageEvent) for event in events)
    return [event for event in events if isinstance(event, UsageEvent)]


def test_given_events_that_no_worker_published_when_swept_then_each_is_in_its_clients_queue_in_order(
    broker_url: str, redis_url: str, cleanup: ExitStack
) -> None:
    """L3: killed between settle and publish, the event still arrives; a client's events keep their order."""
    settings = settings_for(broker_url, redis_url=redis_url, publish="relay", relay_batch=7)
    buckets = buckets_of(settings, cleanup)
    for number in range(20):
        for client_id in CLIENTS:
            settle(buckets, client_id, number)
    relay = Relay(settings, buckets, publisher_of(settings, cleanup), MovedClock())
    total = 0
    while swept := relay.sweep():
        total += swept
    assert (total, depth(settings, buckets)) == (100, 0)
    events = published(settings)
    for client_id in CLIENTS:
        assert [event.correlation_id for event in events if event.client_id == client_id] == [str(n) for n in range(20)]


def test_given_young_entries_then_they_are_left_to_their_worker(
    broker_url: str, redis_url: str, cleanup: ExitStack
) -> None:
    """The worker publishes and confirms by itself; the relay is the second chance."""
    settings = settings_for(broker_url, redis_url=redis_url, relay_after_seconds=60)
    buckets = buckets_of(settings, cleanup)
    settle(buckets, "ada", 1)
    assert Relay(settings, buckets, publisher_of(settings, cleanup), MovedClock()).sweep() == 0
    assert depth(settings, buckets) == 1


def test_given_the_broker_is_away_then_the_sweep_stops_and_loses_nothing(
    broker_url: str, redis_url: str, cleanup: ExitStack
) -> None:
    """RabbitMQ down: events wait in the outbox, and leave it only once they are confirmed."""
    clock = MovedClock()
    with in_front_of(broker_url) as (proxy, url):
        settings = settings_for(url, redis_url=redis_url, publish="relay")
        buckets = buckets_of(settings, cleanup)
        for client_id in CLIENTS:
            settle(buckets, client_id, 1)
        relay = Relay(settings, buckets, publisher_of(settings, cleanup, clock), clock)
        proxy.shut()
        assert relay.sweep() == 0
        assert depth(settings, buckets) == len(CLIENTS)
        proxy.reopen()
        clock.move(PAUSE_SECONDS_MAX)
        assert relay.sweep() == len(CLIENTS)
        assert depth(settings, buckets) == 0
        assert sorted(event.client_id for event in published(settings)) == sorted(CLIENTS)


def test_given_a_queue_that_rejects_then_the_others_are_relayed_and_it_loses_nothing(
    broker_url: str, rabbitmq: RabbitMQ, redis_url: str, cleanup: ExitStack
) -> None:
    """L10: a full queue whose consumer is away keeps back its own events alone, until it takes some again."""
    clock = MovedClock()
    settings = settings_for(broker_url, redis_url=redis_url, publish="relay", usage_queues=4, relay_batch=5)
    buckets = buckets_of(settings, cleanup)
    shards = {client_id: shard_of(client_id, settings.shards) for client_id in CLIENTS}
    # The first of the queues that have something: all others come after it.
    full = min(shards.values())
    kept = [client_id for client_id, shard in shards.items() if shard == full]
    assert len(kept) < len(CLIENTS)
    for number in range(12):
        for client_id in CLIENTS:
            settle(buckets, client_id, number)
    relay = Relay(settings, buckets, publisher_of(settings, cleanup, clock), clock)

    host = urlsplit(broker_url).path.removeprefix("/")
    policy = f'<<"{host}">>, <<"full">>'
    limit = '[{<<"max-length">>, 1}, {<<"overflow">>, <<"reject-publish">>}]'
    pattern = f'<<"^{topology.queue_name(settings, full).replace(".", "[.]")}$">>'
    rabbitmq._call(f'ok = rabbit_policy:set({policy}, {pattern}, {limit}, 0, <<"queues">>, <<"test">>)')

    others = {shard for shard in shards.values() if shard != full}

    def others_are_relayed() -> bool:
        relay.sweep()
        return not any(buckets.outbox_depth(shard) for shard in others)

    wait_until(others_are_relayed, "every other queue has its events")
    assert buckets.outbox_depth(full) > 0
    rabbitmq._call(f'ok = rabbit_policy:delete({policy}, <<"test">>)')

    def relayed() -> bool:
        clock.move(PAUSE_SECONDS_MAX)
        relay.sweep()
        return depth(settings, buckets) == 0

    wait_until(relayed, "the queue takes events again")
    events = published(settings)
    for client_id in CLIENTS:
        numbers = [event.correlation_id for event in events if event.client_id == client_id]
        assert list(dict.fromkeys(numbers)) == [str(number) for number in range(12)]


def test_given_a_failure_in_the_middle_of_a_shard_then_what_was_confirmed_is_removed_and_no_more(
    broker_url: str, redis_url: str, cleanup: ExitStack
) -> None:
    """An entry leaves the outbox with its confirm, not with its neighbour's."""
    settings = settings_for(broker_url, redis_url=redis_url, publish="relay", relay_batch=1_000)
    buckets = buckets_of(settings, cleanup)
    for number in range(600):
        settle(buckets, "ada", number)
    publisher = publisher_of(settings, cleanup)

    class OneWindow:
        """The real publisher, whose queue is deleted behind its first window."""

        def publish_batch(self, queue_number: int, batch: Sequence[Outgoing]) -> None:
            try_window = publisher._try

            def then_delete(number: int, window: Sequence[Outgoing]) -> tuple[int, Unreachable | None]:
                done = try_window(number, window)
                with channel_of(settings) as channel:
                    channel.queue_delete(topology.queue_name(settings, number))
                return done

            publisher._try = then_delete  # type: ignore[method-assign, assignment]
            publisher.publish_batch(queue_number, batch)

    assert Relay(settings, buckets, OneWindow(), MovedClock()).sweep() == 500
    assert depth(settings, buckets) == 100


def test_given_no_confirms_then_entries_stay_and_are_published_again_once_a_minute(
    result_url: str, redis_url: str, cleanup: ExitStack
) -> None:
    """On the Redis transport only a committed row lets an outbox entry go."""
    settings = settings_for(result_url, redis_url=redis_url, publish="relay")
    buckets = buckets_of(settings, cleanup)
    for number in range(3):
        settle(buckets, "ada", number)
    clock = MovedClock()
    relay = Relay(settings, buckets, publisher_of(settings, cleanup), clock)
    assert [relay.sweep(), relay.sweep()] == [3, 0]
    settle(buckets, "ada", 3)
    clock.move(AGAIN_SECONDS - 1)
    assert relay.sweep() == 1
    clock.move(2)
    assert [relay.sweep(), relay.sweep()] == [3, 0]
    assert depth(settings, buckets) == 4
    queue = shard_of("ada", settings.shards) % settings.usage_queues
    assert waiting(settings, queue) == 7


@pytest.mark.parametrize("broker", ["rabbitmq", "redis"])
def test_given_a_published_entry_then_its_message_names_it(
    broker: str, request: pytest.FixtureRequest, redis_url: str, cleanup: ExitStack
) -> None:
    """The headers are what a consumer on Redis removes the entry by."""
    url = request.getfixturevalue("broker_url" if broker == "rabbitmq" else "result_url")
    settings = settings_for(url, redis_url=redis_url, publish="relay")
    buckets = buckets_of(settings, cleanup)
    settle(buckets, "ada", 1)
    shard = shard_of("ada", settings.shards)
    entry = buckets.outbox(shard, older_than_ms=0, count=1)[0]
    Relay(settings, buckets, publisher_of(settings, cleanup), MovedClock()).sweep()
    (message,) = messages(settings, shard % settings.usage_queues)
    assert message.headers == {"billing_shard": shard, "billing_entry": entry.entry_id}
    assert json.loads(bytes(message.body)) == json.loads(entry.event)
