"""What a reading asks of the broker: each usage queue's depth and consumers, on one connection that is kept open.

It declares nothing. A queue that is not there yet has no events and no consumers.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import kombu

from billing.connections import broker
from billing.core.settings import Settings
from billing.events import topology
from billing.observability.overview.values import QueueState

#: How long one answer of the broker is waited for (L9).
_TIMEOUT_SECONDS_MAX: Final = 2.0


class BrokerSide:
    """Asks the broker. One thread at a time may use it."""

    def __init__(self, settings: Settings) -> None:
        bound = min(settings.publish_timeout_seconds, _TIMEOUT_SECONDS_MAX)
        self._settings = dataclasses.replace(settings, publish_timeout_seconds=bound)
        self._connection: kombu.Connection | None = None

    def read(self) -> tuple[QueueState, ...]:
        """Look at every usage queue. Raises `Unreachable`."""
        connection = self._connection or broker.connection(self._settings)
        try:
            with broker.reaching(self._settings, connection):
                if self._connection is None:
                    broker.open_once(self._settings, connection)
                found = tuple(self._queue(connection, number) for number in range(self._settings.usage_queues))
        except BaseException:
            self._connection = None
            broker.throw_away(self._settings, connection)
            raise
        self._connection = connection
        return found

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            broker.throw_away(self._settings, connection)

    def _queue(self, connection: kombu.Connection, number: int) -> QueueState:
        name = topology.queue_name(self._settings, number)
        channel: Any = connection.channel()
        try:
            if not broker.confirms(self._settings):
                # kombu's Redis transport has no word for who is subscribed, and an empty queue is no key.
                return QueueState(name=name, number=number, events=int(channel._size(name)), consumers=None)  # noqa: SLF001 - kombu has no other way
            declared = channel.queue_declare(name, passive=True)
        except connection.channel_errors:
            return QueueState(name=name, number=number, events=0, consumers=0)
        finally:
            channel.close()
        return QueueState(name=name, number=number, events=declared.message_count, consumers=declared.consumer_count)
