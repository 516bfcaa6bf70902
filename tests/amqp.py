"""What tests of queues share: settings, an app on a broker, a look into a queue, events, a clock that a test moves."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import celery
import kombu

from billing.connections import broker
from billing.core.ids import run_id
from billing.core.settings import Settings
from billing.events import topology

START = datetime(2026, 11, 21, 12, tzinfo=UTC)


def settings_for(broker_url: str, **changes: Any) -> Settings:
    """Return settings with an exchange of this test's own and two usage queues."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    given: dict[str, Any] = {"broker_url": broker_url, "usage_exchange": name, "usage_queues": 2, "shards": 4}
    given |= {"publish_timeout_seconds": 30.0, "redis_timeout_seconds": 60.0}
    return Settings(**(given | changes))


@contextmanager
def app_on(url: str, **options: Any) -> Iterator[celery.Celery]:
    """Make an app whose tasks are on a broker."""
    app = celery.Celery("on-a-broker", broker=url, set_as_current=False, broker_transport_options=options)
    try:
        yield app
    finally:
        app.close()


@contextmanager
def channel_of(settings: Settings) -> Iterator[Any]:
    """Open a channel of a plain connection to the broker, with the topology declared; what it publishes is confirmed.

    RabbitMQ may drop what it has not confirmed when the channel ends (seen on 3.10 with new quorum queues).
    """
    options = {"confirm_publish": True} if broker.confirms(settings) else {}
    with kombu.Connection(settings.broker_url, transport_options=options) as connection:
        channel: Any = connection.channel()
        if broker.confirms(settings):
            channel.auto_decode = False
        topology.declare(settings, channel)
        yield channel


def waiting(settings: Settings, number: int) -> int:
    """Return how many messages are ready in a usage queue."""
    with channel_of(settings) as channel:
        declared = channel.queue_declare(topology.queue_name(settings, number), passive=True)
        return int(declared.message_count)


def consumers(settings: Settings, number: int) -> int:
    """Return how many consumers a usage queue has; none also when there is no such queue."""
    with kombu.Connection(settings.broker_url) as connection:
        try:
            channel: Any = connection.channel()
            return int(channel.queue_declare(topology.queue_name(settings, number), passive=True).consumer_count)
        except connection.channel_errors:
            return 0


def messages(settings: Settings, number: int) -> list[Any]:
    """Take every message out of a usage queue; `basic.get` is refused where there is a single active consumer."""
    name = topology.queue_name(settings, number)
    found: list[Any] = []
    with channel_of(settings) as channel:
        count = channel.queue_declare(name, passive=True).message_count
        channel.basic_consume(name, no_ack=True, callback=found.append, consumer_tag="test")
        while len(found) < count:
            channel.connection.client.drain_events(timeout=120)
    return found


def event_body(client_id: str = "acme", task_id: str = "", *, credits_: int = 3, at: datetime = START) -> bytes:
    """Return the bytes of a valid usage event with one line, paid by grant 1."""
    milliseconds = round(at.timestamp() * 1000)
    identifier = run_id(client_id, task_id, nesting=0, nonce="", at_milliseconds=milliseconds)
    line = {"sku": "page", "quantity": 1, "credits": credits_, "grants": [{"grant": 1, "credits": credits_}]}
    event = {
        "version": 1,
        "run_id": str(identifier),
        "client_id": client_id,
        "correlation_id": task_id,
        "root_id": task_id,
        "task": "tests.work",
        "attempt": 1,
        "submitted_at": milliseconds,
        "price_version": 1,
        "settlement_id": f"settled-{identifier}",
        "occurred_at": milliseconds + 1,
        "epoch": 1,
        "late": False,
        "lines": [line],
    }
    return json.dumps(event).encode()


@dataclasses.dataclass
class MovedClock:
    """A clock that stands until a test moves it."""

    at: datetime = START
    seconds: float = 1_000.0

    def now(self) -> datetime:
        """Return the instant at which it stands."""
        return self.at

    def monotonic(self) -> float:
        """Return the monotonic seconds at which it stands."""
        return self.seconds

    def move(self, seconds: float) -> None:
        """Move on."""
        self.at += timedelta(seconds=seconds)
        self.seconds += seconds
