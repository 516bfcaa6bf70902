"""Publisher confirms on one RabbitMQ channel: each message is followed by its own tag, within a deadline.

Guarantee: `publish` returns only when RabbitMQ has taken every message into a queue; a message that was returned as
unroutable, refused, or not confirmed in time counts as not published. py-amqp's own `basic_publish_confirm` takes any
confirm for the right one, and polls the socket in a way that can spin, so neither is used. After an error the channel
is of no use any more: the caller throws its connection away.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

from billing.core.errors import Unreachable


class Unconfirmed(Unreachable):
    """A message was not confirmed: it may or may not arrive, and has to be published again."""


class Blocked(Unconfirmed):
    """The broker takes no messages at all for now: it is short of memory or disk."""


class Unroutable(Unconfirmed):
    """The broker is well, but no queue takes the message: the topology is gone and must be declared again."""


class ConfirmingChannel:
    """A channel in confirm mode."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._first = 1
        self._published = 0
        self._outstanding: set[int] = set()
        self._trouble: type[Unconfirmed] | None = None
        self._reason = ""
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)

    def blocked(self, reason: str) -> None:
        """Note that RabbitMQ has stopped reading from this connection (memory or disk alarm)."""
        self._fail(Blocked, f"it has blocked publishers ({reason})")

    @property
    def confirmed(self) -> int:
        """How many messages of the last `publish` are confirmed, counted from its first one up to a gap."""
        return min(self._outstanding, default=self._published + 1) - self._first

    def publish(self, messages: Sequence[Any], exchange: str, routing_key: str, timeout_seconds: float) -> None:
        """Publish the messages in order and wait for all their confirms.

        Raises `Unconfirmed`, or what the transport raises; `confirmed` then tells how far it came.
        """
        self._first = self._published + 1
        deadline = time.monotonic() + timeout_seconds
        for message in messages:
            # The tag is counted before the bytes leave, so that a gap is never taken for a confirm.
            self._published += 1
            self._outstanding.add(self._published)
            self._channel.basic_publish(message, exchange, routing_key, mandatory=True)
        while self._outstanding and self._trouble is None:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                self._fail(Unconfirmed, f"no confirm within {timeout_seconds:g} s")
                break
            if self._channel.connection is None:
                self._fail(Unconfirmed, "it closed the channel")
                break
            with contextlib.suppress(TimeoutError):
                self._channel.connection.drain_events(timeout=remaining)
        if self._trouble is not None:
            raise self._trouble(self._reason)

    def _fail(self, kind: type[Unconfirmed], reason: str) -> None:
        if self._trouble is None:
            self._trouble, self._reason = kind, reason

    def _on_ack(self, tag: int, multiple: bool) -> None:  # noqa: FBT001 -- the signature is py-amqp's
        if self._trouble is not None:
            return  # the ack that follows a return confirms nothing
        if multiple:
            self._outstanding = {waiting for waiting in self._outstanding if waiting > tag}
        else:
            self._outstanding.discard(tag)

    def _on_nack(self, tag: int, multiple: bool) -> None:  # noqa: ARG002, FBT001 -- the signature is py-amqp's
        self._fail(Unconfirmed, "it refused the message")

    def _on_return(self, error: Exception, exchange: str, routing_key: str, message: object) -> None:  # noqa: ARG002
        self._fail(Unroutable, f"no queue takes {routing_key!r}")
