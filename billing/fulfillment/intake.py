"""The broker's side of the consumer: subscribe to usage queues, receive, ack what was committed, hand back the rest.

Guarantee: nothing is acked but what `ack` is told, and a tag is only ever used on the channel that it came from: an
intake is opened once, and after any error it is thrown away with all its tags. Waits are bounded. What a message is
says `receiving`.
"""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from billing.connections import broker
from billing.core.errors import Unreachable
from billing.core.settings import Settings
from billing.events import signing, topology
from billing.fulfillment.batch import Received
from billing.fulfillment.receiving import headers_of, received

#: RabbitMQ takes a consumer for dead that is silent for about twice this long, and sends its messages to another.
HEARTBEAT_SECONDS: Final = 20.0
#: Batches that the broker sends ahead to each queue's consumer: one is written while the next one comes (L9).
BATCHES_AHEAD: Final = 2


def ahead(settings: Settings) -> int:
    """Return how many messages of one queue the broker sends before some of them are acked."""
    return min(BATCHES_AHEAD * settings.batch_events, 65_535)


class Intake:
    """One connection and one channel that consume `queues`. `receive` gets every message, decoded."""

    def __init__(self, settings: Settings, queues: Sequence[int], receive: Callable[[Received], None]) -> None:
        self._settings = settings
        self._queues = tuple(queues)
        self._receive = receive
        self._verifier = signing.verifier(settings.verifying_keys)
        #: How many messages came signed though no signature is asked for: senders are ahead of their consumer.
        self.signed_unasked = 0
        self._acks_many = broker.confirms(settings)
        self._connection = broker.connection(settings, heartbeat_seconds=HEARTBEAT_SECONDS)
        self._channel: Any = None

    def open(self) -> None:
        """Connect, declare the topology and subscribe. Raises `Unreachable`."""
        with broker.reaching(self._settings, self._connection):
            broker.open_once(self._settings, self._connection)
            channel: Any = self._connection.channel()
            self._channel = channel
            channel.auto_decode = False  # the decoder takes bytes
            topology.declare(self._settings, channel)
            channel.basic_qos(0, ahead(self._settings), False)  # noqa: FBT003 -- py-amqp's and kombu's names for it differ
            for number in self._queues:
                name = topology.queue_name(self._settings, number)
                channel.basic_consume(
                    queue=name,
                    no_ack=False,
                    callback=functools.partial(self._on_message, name),
                    consumer_tag=f"billing.{name}.{uuid.uuid4().hex[:8]}",
                )

    def pull(self, timeout_seconds: float, enough: Callable[[], bool]) -> None:
        """Receive until it is `enough` or about `timeout_seconds` are over. Raises `Unreachable`."""
        seconds = max(timeout_seconds, 0.001)
        ends = time.monotonic() + seconds
        with broker.reaching(self._settings, self._connection), self._waiting(seconds) as timeout:
            transport, connection = self._connection.transport, self._connection.connection
            with suppress(TimeoutError):
                while time.monotonic() < ends and not enough():
                    transport.drain_events(connection, timeout=timeout)

    @contextmanager
    def _waiting(self, seconds: float) -> Iterator[float | None]:
        """Set how long a read waits, once for many messages: py-amqp would set it, and set it back, for each frame."""
        if not self._acks_many:
            yield seconds
            return
        raw = self._connection.connection
        raw.sock.settimeout(seconds)
        try:
            yield None
        finally:
            if raw.connected:
                raw.sock.settimeout(self._settings.publish_timeout_seconds)

    def beat(self) -> None:
        """Tell the broker that this consumer lives, when it is time to. Raises `Unreachable` if the broker does not."""
        with broker.reaching(self._settings, self._connection):
            self._connection.heartbeat_check()

    def check(self) -> None:
        """Ask the broker whether each queue still has a consumer. Raises `Unreachable` if it does not.

        RabbitMQ tells a consumer when its queue is deleted, but not always when it is declared again at once.
        """
        if not self._acks_many:
            return
        with broker.reaching(self._settings, self._connection):
            for number in self._queues:
                name = topology.queue_name(self._settings, number)
                if self._channel.queue_declare(name, passive=True).consumer_count == 0:
                    message = f"billing_usage_exchange: queue {name!r}: the broker has forgotten its consumer"
                    raise Unreachable(message)

    def ack(self, batch: Sequence[Received]) -> None:
        """Ack a committed batch, which is the front of all that is not acked. Raises `Unreachable`."""
        with broker.reaching(self._settings, self._connection):
            if self._acks_many:
                # Tags rise in the order of delivery, over all queues of the channel: this covers the batch, no more.
                self._channel.basic_ack(batch[-1].tag, multiple=True)
            else:
                for received in batch:
                    self._channel.basic_ack(received.tag)

    def close(self) -> None:
        """Say farewell, so that acks on their way arrive; what is not acked goes back to its queue."""
        with suppress(Exception), broker.reaching(self._settings, self._connection):
            self._connection.release()
        self.throw_away()

    def throw_away(self) -> None:
        """Drop the connection without waiting for the broker; what is not acked goes back to its queue."""
        broker.throw_away(self._settings, self._connection)

    def _on_message(self, queue: str, message: Any) -> None:
        if self._verifier is None and headers_of(message).get(signing.SIGNATURE_HEADER) is not None:
            self.signed_unasked += 1
        self._receive(received(queue, message, self._verifier))
