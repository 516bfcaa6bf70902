"""One batch is written whatever the log says: it waits, or is cut until the refused message stands alone (L3, L10)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from billing.core.errors import Unreachable
from billing.fulfillment.backoff import Backoff
from billing.fulfillment.batch import Received
from billing.fulfillment.commit import TRIES_MAX, TRIES_OF_A_PART, Commit, Stopped, Written
from billing.fulfillment.delivery import Delivered, Poison
from billing.fulfillment.log import BatchReport, LogUnready, Unwritable
from tests.usage_events import QUEUE, usage_event


class Log:
    """A log that writes what the test lets it; dead letters it takes always."""

    def __init__(self, refuse: Callable[[Sequence[Delivered]], Exception | None]) -> None:
        self.refuse = refuse
        self.tries = 0
        self.written: list[bytes] = []
        self.letters: list[bytes] = []

    def write(self, batch: Sequence[Delivered]) -> BatchReport:
        """Write all of a batch, or nothing."""
        self.tries += 1
        if self.tries > 200:
            pytest.fail("it is tried for ever")
        events = [message for message in batch if not isinstance(message.decoded, Poison)]
        error = self.refuse(events)
        if error is not None:
            raise error
        self.written += [message.body for message in events]
        self.letters += [message.body for message in batch if message not in events]
        return BatchReport(events=len(events), rows_inserted=len(events), dead_letters=len(batch) - len(events))

    def close(self) -> None:
        """Nothing is open."""


def a_batch(count: int) -> list[Received]:
    """Return messages, each with its number as its bytes."""
    return [Received(body=b"%d" % tag, queue=QUEUE, decoded=usage_event(), tag=tag) for tag in range(count)]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no failure take its time."""
    monkeypatch.setattr(Backoff, "next_seconds", lambda _: 0.0)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("error", [Unwritable("usage_history: refused"), RuntimeError("a bug")])
def test_l10_the_message_that_is_refused_is_a_dead_letter_and_all_others_are_written(
    count: int, error: Exception
) -> None:
    for bad in range(count):
        body = b"%d" % bad

        def refuse(events: Sequence[Delivered], body: bytes = body) -> Exception | None:
            return error if any(message.body == body for message in events) else None

        log = Log(refuse)
        report = Commit(log, threading.Event()).commit(a_batch(count))
        assert sorted(log.written) == [b"%d" % tag for tag in range(count) if tag != bad]
        assert log.letters == [body]
        assert report == Written(events=count, rows=count - 1, duplicates=0, dead_letters=1)


def test_l9_what_fails_in_an_unforeseen_way_is_tried_so_often_and_its_parts_less() -> None:
    log = Log(lambda events: RuntimeError("a bug") if events else None)
    Commit(log, threading.Event()).commit(a_batch(2))
    assert log.tries == TRIES_MAX + 2 * (TRIES_OF_A_PART + 1)
    assert log.letters == [b"0", b"1"]


@pytest.mark.parametrize("error", [Unreachable("the server is away"), LogUnready("no such table")])
def test_l3_a_stop_while_the_database_is_away_writes_nothing_and_says_so(error: Exception) -> None:
    """Given a batch that waits, when the consumer is to stop, then nobody takes the batch for written, and acks it."""
    stop = threading.Event()
    log = Log(lambda _: error)
    stop.set()
    with pytest.raises(Stopped):
        Commit(log, stop).commit(a_batch(3))
    assert (log.written, log.letters) == ([], [])


def test_a_database_that_comes_back_has_the_batch_as_it_was() -> None:
    """No message is blamed, however long it is away."""
    answers: list[Exception | None] = [*[Unreachable("the server is away")] * 20, None]
    log = Log(lambda _: answers.pop(0))
    commit = Commit(log, threading.Event())
    assert commit.commit(a_batch(3)) == Written(events=3, rows=3, duplicates=0, dead_letters=0)
    assert (log.written, commit.waits, commit.waits_since) == ([b"0", b"1", b"2"], 20, None)
