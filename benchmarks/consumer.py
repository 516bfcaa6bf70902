"""The consumer, from RabbitMQ to committed rows, against the same queue consumed and acked with no work at all.

The idle side is kombu's own `Consumer` with the same prefetch and multiple acks, which looks at no message. Both take
turns on one queue that is filled with the same events each time, so that both meet the same moment of the machine.
"""

from __future__ import annotations

import itertools
import random
import statistics
import threading
import time
import uuid
from collections.abc import Sequence
from typing import Any, Final

import kombu
import msgspec

from benchmarks import one_by_one
from benchmarks.rows import Row, alternated
from benchmarks.sample_events import sample_events
from benchmarks.servers import Servers
from billing.connections import postgres
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.events import topology
from billing.events.links import Outgoing
from billing.events.publisher import Publisher
from billing.fulfillment.consumer import Consumer
from billing.fulfillment.intake import BATCHES_AHEAD
from billing.fulfillment.postgres_log import PostgresUsageLog
from billing.schema.migrate import migrate

EVENTS: Final = 15_000
CLIENTS: Final = 20
TURNS: Final = 5
MARK: Final = 0.5
BOUND_SECONDS: Final = 120.0


def rows(servers: Servers) -> list[Row]:
    """Measure, and return the row with the mark, and the rate behind it."""
    name = "consumer, RabbitMQ to committed rows"
    if servers.rabbitmq is None:
        return [Row(name=name, value=0.0, unit="x the rate", against="RabbitMQ is missing", mark=MARK, met=None)]
    broker_url = servers.rabbitmq.add_virtual_host("benchmark-consumer")
    try:
        settings = Settings(database_url=servers.fresh_database("consumer"), broker_url=broker_url, usage_queues=1)
        migrate(settings)
        clients = [f"client-{number}" for number in range(CLIENTS)]
        shards = [shard_of(client_id, settings.shards) for client_id in clients]
        with postgres.connect(settings) as connection:
            connection.execute(
                "INSERT INTO client (client_id, shard) SELECT * FROM unnest(%s::text[], %s::int[])", [clients, shards]
            )
        idle, ours = _take_turns(settings, clients, 1 if servers.quick else TURNS)
        beside = one_by_one.rows(servers, lambda: _rate(settings, clients), clients)
    finally:
        servers.rabbitmq.remove_virtual_host("benchmark-consumer")
    ratio = statistics.median(plain / full for plain, full in zip(idle, ours, strict=True))
    rate, plain_rate = EVENTS / statistics.median(ours), EVENTS / statistics.median(idle)
    against = f"consumed and acked with no work: {plain_rate:,.0f} events/s"
    return [
        Row(name=name, value=ratio, unit="x the rate", against=against, mark=MARK, met=ratio >= MARK),
        Row(name=name, value=rate, unit="events/s", against="", mark=None, met=None),
        *beside,
    ]


def _take_turns(settings: Settings, clients: Sequence[str], turns: int) -> tuple[list[float], list[float]]:
    """Return the seconds that either side takes for `EVENTS` events, turn by turn, after one turn to warm up."""
    seeded = random.Random(1)
    idle: list[float] = []
    ours: list[float] = []
    publisher = Publisher(settings)
    sides = ((idle, _consume_idle), (ours, _consume))
    for number in range(1 + turns):
        for seconds, consume in alternated(sides, number):
            publisher.publish_batch(0, _messages(seeded, clients))
            seconds.append(consume(settings))
    publisher.close()
    return idle[1:], ours[1:]


def _rate(settings: Settings, clients: Sequence[str]) -> float:
    """Return how many events a second the consumer writes, of a queue that was filled before."""
    publisher = Publisher(settings)
    publisher.publish_batch(0, _messages(random.Random(uuid.uuid4().int), clients))
    publisher.close()
    return EVENTS / _consume(settings)


def _consume_idle(settings: Settings) -> float:
    count = 0

    def on_message(message: Any) -> None:
        nonlocal count
        count += 1
        if count % settings.batch_events == 0:
            message.ack(multiple=True)

    started = time.perf_counter()
    with kombu.Connection(settings.broker_url) as connection:
        channel: Any = connection.channel()
        consumer = kombu.Consumer(channel, [topology.queue(settings, 0)], on_message=on_message)
        consumer.qos(prefetch_count=BATCHES_AHEAD * settings.batch_events)
        consumer.consume()
        # A bound on the socket, since one with each call would slow this side down.
        connection.connection.sock.settimeout(BOUND_SECONDS)
        while count < EVENTS:
            connection.drain_events()
        return time.perf_counter() - started


def _consume(settings: Settings) -> float:
    stop = threading.Event()
    log = PostgresUsageLog(lambda: postgres.connect(settings), shards=settings.shards)
    consumer = Consumer(settings, log, stop=stop)
    thread = threading.Thread(target=consumer.run)
    started = time.perf_counter()
    thread.start()
    while consumer.written.events < EVENTS and time.perf_counter() - started < BOUND_SECONDS:
        time.sleep(0.002)
    seconds = time.perf_counter() - started
    stop.set()
    thread.join()
    if consumer.written.rows != EVENTS:
        message = f"the consumer did not write every event: {consumer.written}"
        raise RuntimeError(message)
    return seconds


def _messages(seeded: random.Random, clients: Sequence[str]) -> list[Outgoing]:
    """Return events as workers publish them."""
    events = sample_events(seeded, itertools.islice(itertools.cycle(clients), EVENTS))
    return [Outgoing(body=msgspec.json.encode(event), shard=0, entry_id=f"{event.occurred_at}-0") for event in events]
