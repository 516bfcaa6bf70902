"""Publishes the messages of parked tasks: to the app's broker, whence they came, confirmed, mandatory, bounded in time.

Guarantee on RabbitMQ: when `publish` returns, a queue has the message. After any error the connection is thrown away
without a farewell; the next publish makes another. kombu's Redis transport has no confirms: there a message is on its
way, no more, and one whose queue nobody has declared vanishes.
"""

from __future__ import annotations

from typing import Any

import celery
import kombu

from billing.connections import broker, task_broker
from billing.core.errors import Unreachable
from billing.core.settings import Settings
from billing.events.confirms import Blocked, ConfirmingChannel, Unconfirmed
from billing.parking.message import Message


class NotTaken(Unconfirmed):
    """The broker is well, but this message did not get into a queue: nobody else's need wait."""


class HandingOver:
    """A publisher of task messages, for one thread."""

    def __init__(self, app: celery.Celery, settings: Settings) -> None:
        self._app = app
        self._settings = task_broker.settings_for(app, settings)
        self._connection: kombu.Connection | None = None
        self._channel: Any = None
        self._confirming: ConfirmingChannel | None = None

    def publish(self, message: Message) -> None:
        """Publish one message. Raises `NotTaken` where it alone is refused, else `Unreachable`."""
        # One that broke while it was idle says so at once, and is worth a new one.
        for reused in (self._connection is not None, False):
            try:
                self._publish(message)
            except Unconfirmed as error:
                self.close()
                if isinstance(error, Blocked):
                    raise
                raise NotTaken(str(error)) from error
            except Unreachable:
                self.close()
                if not reused:
                    raise
            except BaseException:
                self.close()
                raise
            else:
                return

    def close(self) -> None:
        """Throw the connection away."""
        connection, self._connection, self._channel, self._confirming = self._connection, None, None, None
        if connection is not None:
            broker.throw_away(self._settings, connection)

    def _publish(self, message: Message) -> None:
        if self._connection is None:
            self._connection = task_broker.connection(self._app, self._settings, self._on_blocked)
            with broker.reaching(self._settings, self._connection):
                task_broker.open_any(self._settings, self._connection)
                self._channel = self._connection.channel()
                if broker.confirms(self._settings):
                    self._confirming = ConfirmingChannel(self._channel)
        with broker.reaching(self._settings, self._connection):
            try:
                self._send(self._connection, message)
            except self._connection.channel_errors as error:
                # An exchange that is gone, or not ours to publish to: the broker closes the channel over it.
                reason = f"{type(error).__name__}: {error}"
                raise NotTaken(reason) from error

    def _send(self, connection: kombu.Connection, message: Message) -> None:
        if self._confirming is None:
            connection.Producer(self._channel, auto_declare=False).publish(
                message.body,
                exchange=message.exchange,
                routing_key=message.routing_key,
                content_type=message.content_type,
                content_encoding=message.content_encoding,
                headers=dict(message.headers),
                retry=False,
                **{name: value for name, value in message.properties.items() if name != "expiration"},
            )
            return
        properties = dict(message.properties)
        prepared = self._channel.prepare_message(
            message.body,
            priority=properties.pop("priority", None),
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            headers=dict(message.headers),
            properties=properties,
        )
        seconds = self._settings.publish_timeout_seconds
        self._confirming.publish([prepared], message.exchange, message.routing_key, seconds)

    def _on_blocked(self, reason: str) -> None:
        if self._confirming is not None:
            self._confirming.blocked(reason)
