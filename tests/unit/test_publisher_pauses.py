"""What is given time to come back after a failed publish: the queue alone where the broker answers (L9, L10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest

from billing.core.errors import Unreachable
from billing.core.settings import Settings
from billing.events import publisher as publishing
from billing.events.confirms import Blocked, Unconfirmed, Unroutable
from billing.events.links import Outgoing
from billing.events.publisher import PAUSE_SECONDS, PartlyPublished, Publisher

SILENT: Final = 0


class Broker:
    """A broker, as a link to it and as its clock. One queue fails as the test says."""

    confirmed = 0

    def __init__(self, failure: type[Unreachable]) -> None:
        self.failure: type[Unreachable] | None = failure
        self.seconds = 0.0
        self.tried: list[int] = []

    def monotonic(self) -> float:
        """Return the time."""
        return self.seconds

    def open(self) -> None:
        """Answer."""

    def publish(self, queue_number: int, _window: Sequence[Outgoing]) -> None:
        """Confirm, but for the one queue."""
        self.tried.append(queue_number)
        if queue_number == SILENT and self.failure is not None:
            raise self.failure("no")

    def throw_away(self) -> None:
        """Nothing is open."""


def publisher_to(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Publisher:
    """Return a publisher."""
    monkeypatch.setattr(publishing, "link_to", lambda _: broker)
    return Publisher(Settings(), broker)  # type: ignore[arg-type]


def is_taken(publisher: Publisher, queue: int) -> bool:
    """Publish one event; return whether it was confirmed."""
    try:
        publisher.publish(queue, b"", shard=queue, entry_id=None)
    except PartlyPublished:
        return False
    return True


def test_l10_a_queue_that_confirms_nothing_is_given_time_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given one such queue, then the others' events go on, it is left alone for longer and longer, and comes back."""
    broker = Broker(Unconfirmed)
    publisher = publisher_to(broker, monkeypatch)
    assert not is_taken(publisher, SILENT)
    assert is_taken(publisher, 1)
    assert not is_taken(publisher, SILENT)
    assert broker.tried == [SILENT, 1]

    broker.seconds += PAUSE_SECONDS
    assert not is_taken(publisher, SILENT)
    broker.seconds += PAUSE_SECONDS
    assert not is_taken(publisher, SILENT), "though another queue was confirmed meanwhile"
    assert broker.tried == [SILENT, 1, SILENT]

    broker.failure = None
    broker.seconds += PAUSE_SECONDS
    assert is_taken(publisher, SILENT)
    assert is_taken(publisher, SILENT)


@pytest.mark.parametrize("failure", [Unreachable, Blocked])
def test_l9_a_broker_that_is_away_or_blocked_is_given_time_as_a_whole(
    monkeypatch: pytest.MonkeyPatch, failure: type[Unreachable]
) -> None:
    """Given a failure that is not the queue's, then no other queue is tried before the pause is over."""
    broker = Broker(failure)
    publisher = publisher_to(broker, monkeypatch)
    assert not is_taken(publisher, SILENT)
    assert not is_taken(publisher, 1)
    assert broker.tried == [SILENT]
    broker.seconds += PAUSE_SECONDS
    assert is_taken(publisher, 1)


def test_a_queue_that_is_gone_is_declared_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given an unroutable event, then nobody waits."""
    broker = Broker(Unroutable)
    publisher = publisher_to(broker, monkeypatch)
    assert not is_taken(publisher, SILENT)
    broker.failure = None
    assert is_taken(publisher, SILENT)
