"""Senders with keys, consumers that ask for them, and whoever holds the broker."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from billing.core.settings import Settings
from billing.core.shards import queue_of, shard_of
from billing.core.signing_keys import SigningKey
from billing.events import topology
from billing.fulfillment.consumer import Consumer
from tests.amqp import channel_of, messages
from tests.integration.consuming import letters, running, send, usage_log
from tests.waiting import wait_until

OWN = SigningKey(sender="workers", secret=b"w" * 32)
SHOP = SigningKey(sender="shop", secret=b"s" * 32)
MALLORY = SigningKey(sender="workers", secret=b"m" * 32)
ASKING: dict[str, Any] = {"signing_key": OWN, "verifying_keys": (OWN, SHOP)}

Headers = dict[str, Any]


def signing(settings: Settings, key: SigningKey | None) -> Settings:
    """Return the settings of a sender."""
    return dataclasses.replace(settings, signing_key=key, verifying_keys=())


def publish(settings: Settings, number: int, body: bytes, headers: Headers) -> None:
    """Put a message into a usage queue as whoever holds the broker can."""
    with channel_of(settings) as channel:
        message = channel.prepare_message(body, headers=headers)
        channel.basic_publish(message, settings.usage_exchange, topology.queue_name(settings, number))


def capture(settings: Settings, key: SigningKey, client_id: str, body: bytes) -> tuple[int, bytes, Headers]:
    """Have a sender publish an event, and take it from the queue before any consumer does."""
    send(signing(settings, key), [(client_id, body)])
    number = queue_of(shard_of(client_id, settings.shards), settings.usage_queues)
    (message,) = messages(settings, number)
    return number, bytes(message.body), dict(message.headers)


@contextmanager
def consuming(settings: Settings) -> Iterator[Consumer]:
    """Run a consumer."""
    consumer = Consumer(settings, usage_log(settings))
    with running(consumer):
        yield consumer


def until_seen(consumer: Consumer, count: int) -> None:
    """Wait until a consumer has written so many messages, whatever became of them."""
    wait_until(lambda: consumer.written.events >= count, f"{count} messages are written")


def reasons(settings: Settings) -> list[str]:
    """Return why each letter was refused."""
    return sorted(reason for _, reason in letters(settings))
