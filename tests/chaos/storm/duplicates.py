"""Usage events that are published once more: a queue beside the usage queues has a copy of every event for that."""

from __future__ import annotations

import random
from typing import Any, Final

import kombu

from billing.core.settings import Settings
from billing.events import topology
from tests.chaos.storm.left_out import LeftOut

#: Copies that wait, at most; the oldest give way (L9).
_KEPT_MAX: Final = 2_000
#: Events that are published again at once.
_AGAIN: Final = 60
_QUEUE: Final = "storm.copies"


class Duplicates:
    """Copies of usage events, and how many of them were sent again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._queue = kombu.Queue(
            _QUEUE,
            topology.exchange(settings),
            routing_key="#",
            durable=True,
            queue_arguments={"x-max-length": _KEPT_MAX},
        )
        self.published = 0
        with self._connection() as connection:
            channel = connection.channel()
            topology.declare(settings, channel)
            self._queue(channel).declare()

    def publish_again(self, chance: random.Random) -> None:
        """Publish some of the copies, some of them twice, in an order of chance."""
        with self._connection() as connection:
            channel: Any = connection.channel()
            found: list[Any] = []
            while len(found) < _AGAIN and (message := self._queue(channel).get(no_ack=True)) is not None:
                found.append(message)
            if not found:
                raise LeftOut("no event was published yet")
            again = found + chance.sample(found, len(found) // 4)
            chance.shuffle(again)
            producer = kombu.Producer(channel, topology.exchange(self._settings), auto_declare=False)
            for message in again:
                producer.publish(
                    message.body,
                    routing_key=message.delivery_info["routing_key"],
                    headers=message.headers,
                    content_type=message.content_type,
                    content_encoding=message.content_encoding,
                    delivery_mode=2,
                )
                self.published += 1

    def remove(self) -> None:
        """Remove the copies."""
        with self._connection() as connection:
            self._queue(connection.channel()).delete()

    def _connection(self) -> kombu.Connection:
        bounds = {"confirm_publish": True, "read_timeout": 20, "write_timeout": 20}
        return kombu.Connection(self._settings.broker_url, transport_options=bounds, connect_timeout=5)
