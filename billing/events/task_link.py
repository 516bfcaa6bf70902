"""A way to the broker of an app's tasks, by which billing publishes their messages once more.

Guarantee on RabbitMQ: when `publish` returns, a queue has the message. It knows nothing of threads, pauses or second
tries, and once it has raised it is of no use any more: throw it away. kombu's Redis transport has no confirms: there a
message is on its way, no more, and one whose queue nobody has declared vanishes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import celery

from billing.connections import broker, task_broker
from billing.core.errors import Unreachable
from billing.core.settings import Settings
from billing.events.confirms import ConfirmingChannel
from billing.events.task_message import TaskMessage


class Refused(Unreachable):
    """The broker is well, but closes the channel over this: what it names is gone, other than ours, or not ours."""


class TaskLink:
    """A connection, and its channel: in confirm mode where there are confirms."""

    def __init__(self, app: celery.Celery, settings: Settings) -> None:
        self.url = task_broker.url_of(app)
        self._settings = task_broker.settings_for(app, settings)
        self._connection = task_broker.connection(app, self._settings, self._on_blocked)
        self._channel: Any = None
        self._confirming: ConfirmingChannel | None = None

    def open(self) -> None:
        """Connect, trying each server once. Raises `Unreachable`."""
        with broker.reaching(self._settings, self._connection):
            task_broker.open_any(self._settings, self._connection)
            self._channel = self._connection.channel()
            if broker.confirms(self._settings):
                self._confirming = ConfirmingChannel(self._channel)

    def declare(self, declare: Callable[[Any], None]) -> None:
        """Have the channel declare something. Raises `Refused`, `Unreachable`."""
        self._call(lambda: declare(self._channel))

    def publish(self, message: TaskMessage, *, exchange: str | None = None) -> None:
        """Publish a message, to its own exchange or to another. Raises `Unconfirmed`, `Refused`, `Unreachable`."""
        if self._channel is None:
            reason = "a link publishes only once it is open"
            raise Unreachable(reason)
        where = message.exchange if exchange is None else exchange
        self._call(lambda: self._send(message, where))

    def throw_away(self) -> None:
        """Close the sockets without waiting for the server."""
        broker.throw_away(self._settings, self._connection)

    def _call(self, call: Callable[[], None]) -> None:
        with broker.reaching(self._settings, self._connection):
            try:
                call()
            except self._connection.channel_errors as error:
                reason = f"{type(error).__name__}: {error}"
                raise Refused(reason) from error

    def _send(self, message: TaskMessage, exchange: str) -> None:
        properties = dict(message.properties)
        if self._confirming is None:
            properties.pop("expiration", None)
            self._connection.Producer(self._channel, auto_declare=False).publish(
                message.body,
                exchange=exchange,
                routing_key=message.routing_key,
                content_type=message.content_type,
                content_encoding=message.content_encoding,
                headers=dict(message.headers),
                retry=False,
                **properties,
            )
            return
        prepared = self._channel.prepare_message(
            message.body,
            priority=properties.pop("priority", None),
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            headers=dict(message.headers),
            properties=properties,
        )
        self._confirming.publish([prepared], exchange, message.routing_key, self._settings.publish_timeout_seconds)

    def _on_blocked(self, reason: str) -> None:
        if self._confirming is not None:
            self._confirming.blocked(reason)
