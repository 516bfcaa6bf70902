"""What one channel in confirm mode takes for confirmed, frame by frame, without a broker (L3)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from billing.events.confirms import ConfirmingChannel, Unconfirmed, Unroutable


class Channel:
    """A channel whose broker says what the test has written down, one frame at a time."""

    def __init__(self, *frames: tuple[str, tuple[Any, ...]]) -> None:
        self.events: dict[str, set[Callable[..., None]]] = defaultdict(set)
        self.connection = self
        self.frames = list(frames)

    def confirm_select(self) -> None:
        """Confirm from now on."""

    def basic_publish(self, *_: object, **__: object) -> None:
        """Take a message."""

    def drain_events(self, timeout: float) -> None:
        """Give all that the broker has said, as one read of the socket may."""
        assert timeout > 0
        frames, self.frames = self.frames, []
        for name, arguments in frames:
            for listener in self.events[name]:
                listener(*arguments)


RETURNED = ("basic_return", (Exception(), "exchange", "queue", None))


def test_the_ack_that_follows_a_return_confirms_nothing() -> None:
    """Given a message that no queue takes, which RabbitMQ returns and acks, then it was not published."""
    channel = ConfirmingChannel(Channel(("basic_ack", (1, False)), RETURNED, ("basic_ack", (2, False))))
    with pytest.raises(Unroutable):
        channel.publish([b"one", b"two"], "exchange", "queue", 60.0)
    assert channel.confirmed == 1


def test_an_ack_of_several_confirms_those_up_to_its_tag() -> None:
    channel = ConfirmingChannel(Channel(("basic_ack", (2, True)), ("basic_nack", (3, False))))
    with pytest.raises(Unconfirmed):
        channel.publish([b"one", b"two", b"three", b"four"], "exchange", "queue", 60.0)
    assert channel.confirmed == 2


def test_what_comes_out_of_order_is_confirmed_up_to_the_gap() -> None:
    channel = ConfirmingChannel(
        Channel(("basic_ack", (1, False)), ("basic_ack", (3, False)), ("basic_nack", (2, False)))
    )
    with pytest.raises(Unconfirmed):
        channel.publish([b"one", b"two", b"three"], "exchange", "queue", 60.0)
    assert channel.confirmed == 1
