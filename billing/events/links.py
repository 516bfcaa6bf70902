"""The two ways to a broker: RabbitMQ, which confirms, and transports that do not (kombu's Redis).

A link connects, declares the topology once, and publishes; it knows nothing of threads, pauses or second tries. Bodies
go out as the bytes they are, signed where there is a key: whatever reaches a usage queue has come through here. Once a
link has raised, it is of no use any more: throw it away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec
from amqp.exceptions import AccessRefused

from billing.connections import broker
from billing.core.errors import Unreachable
from billing.core.settings import Settings, without_password
from billing.events import signing, topology
from billing.events.confirms import ConfirmingChannel, Unconfirmed

CONTENT_TYPE: Final = "application/json"
MESSAGE_TYPE: Final = "billing.usage.v1"
#: Headers from which a consumer learns which outbox entry a message came from.
SHARD_HEADER: Final = "billing_shard"
ENTRY_HEADER: Final = "billing_entry"
PERSISTENT: Final = 2


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """An event on its way: its bytes, and the outbox entry that it came from (`entry_id` None: from no outbox)."""

    body: bytes
    shard: int
    entry_id: str | None


class Link(Protocol):
    """What the publisher asks of a way to a broker."""

    @property
    def confirmed(self) -> int:
        """How many messages of the last `publish` are known to be in a queue, counted from its first one."""
        ...

    def open(self) -> None:
        """Connect and declare. Raises `Unreachable`."""
        ...

    def publish(self, queue_number: int, window: Sequence[Outgoing]) -> None:
        """Publish in order, within the bound. Raises `Unreachable`."""
        ...

    def throw_away(self) -> None:
        """Close the sockets without waiting for the server."""
        ...


def link_to(settings: Settings) -> Link:
    """Return a link to the broker of the settings, not yet open."""
    return AmqpLink(settings) if broker.confirms(settings) else PlainLink(settings)


class AmqpLink:
    """RabbitMQ: a connection, its channel in confirm mode, the topology declared once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection = broker.connection(settings, on_blocked=self._on_blocked)
        self._channel: Any = None
        self._confirming: ConfirmingChannel | None = None
        self._sent = False

    @property
    def confirmed(self) -> int:
        """See `Link`."""
        return self._confirming.confirmed if self._confirming is not None and self._sent else 0

    def open(self) -> None:
        """See `Link`."""
        with broker.reaching(self._settings, self._connection):
            broker.open_once(self._settings, self._connection)
            self._channel = self._declared()
            self._confirming = ConfirmingChannel(self._channel)

    def publish(self, queue_number: int, window: Sequence[Outgoing]) -> None:
        """See `Link`."""
        if self._confirming is None:
            message = "a link publishes only once it is open"
            raise Unreachable(message)
        settings = self._settings
        queue = topology.queue_name(settings, queue_number)
        messages = [self._message(queue, outgoing) for outgoing in window]
        self._sent = True
        try:
            with broker.reaching(settings, self._connection):
                self._confirming.publish(
                    messages,
                    settings.usage_exchange,
                    queue,
                    settings.publish_timeout_seconds,
                )
        except Unconfirmed as error:
            server = without_password(settings.broker_url)
            raise type(error)(f"billing_broker_url: {server!r}: the event was not confirmed: {error}") from error

    def throw_away(self) -> None:
        """See `Link`."""
        broker.throw_away(self._settings, self._connection)

    def _declared(self) -> Any:
        """Return a channel, the topology declared if this user may: one who may only publish finds what consumers have.

        Without consumers ever there is nothing to publish to, which is the error of the publish then.
        """
        channel: Any = self._connection.channel()
        try:
            topology.declare(self._settings, channel)
        except AccessRefused:
            channel = self._connection.channel()
        return channel

    def _message(self, queue: str, outgoing: Outgoing) -> Any:
        return self._channel.prepare_message(
            outgoing.body,
            content_type=CONTENT_TYPE,
            content_encoding="utf-8",
            headers=_headers(self._settings, queue, outgoing),
            properties={"delivery_mode": PERSISTENT, "type": MESSAGE_TYPE},
        )

    def _on_blocked(self, reason: str) -> None:
        if self._confirming is not None:
            self._confirming.blocked(reason)


class PlainLink:
    """A transport without confirms: what `publish` sends is on its way, no more."""

    confirmed: Final = 0

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection = broker.connection(settings)
        self._producer: Any = None

    def open(self) -> None:
        """See `Link`."""
        with broker.reaching(self._settings, self._connection):
            broker.open_once(self._settings, self._connection)
            channel = self._connection.channel()
            topology.declare(self._settings, channel)
            self._producer = self._connection.Producer(channel, auto_declare=False)

    def publish(self, queue_number: int, window: Sequence[Outgoing]) -> None:
        """See `Link`."""
        queue = topology.queue_name(self._settings, queue_number)
        # Straight to the queue: this transport drops a message whose binding was flushed, and says nothing.
        with broker.reaching(self._settings, self._connection):
            for outgoing in window:
                self._producer.publish(
                    outgoing.body,
                    exchange="",
                    routing_key=queue,
                    content_type=CONTENT_TYPE,
                    content_encoding="utf-8",
                    headers=_headers(self._settings, queue, outgoing),
                    delivery_mode=PERSISTENT,
                    type=MESSAGE_TYPE,
                    retry=False,
                )

    def throw_away(self) -> None:
        """See `Link`."""
        broker.throw_away(self._settings, self._connection)


def _headers(settings: Settings, queue: str, outgoing: Outgoing) -> dict[str, Any]:
    headers: dict[str, Any] = {SHARD_HEADER: outgoing.shard}
    if outgoing.entry_id is not None:
        headers[ENTRY_HEADER] = outgoing.entry_id
    if settings.signing_key is not None:
        headers[signing.SIGNATURE_HEADER] = signing.sign(
            settings.signing_key, outgoing.body, queue=queue, shard=outgoing.shard, entry_id=outgoing.entry_id
        )
    return headers
