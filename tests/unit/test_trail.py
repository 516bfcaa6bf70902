"""The notes of a process: bounded, one client never takes another's place, and Redis being away fails no task (L10)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from billing.core.errors import Unreachable
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.task import trail as room
from billing.task.trail import Note, Trail, decode_note, encode_note
from billing.testing.clock import TestClock


class Shelf:
    """What takes notes in place of Redis."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, bytes]] = []
        self.away = False

    def add_notes(self, notes: Sequence[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """Take them, unless it is away."""
        if self.away:
            raise Unreachable("away")
        self.taken += notes
        return []

    @property
    def read(self) -> list[Note]:
        """The notes that were taken, in their order."""
        return [note for _, data in self.taken if (note := decode_note(data)) is not None]


class Process:
    """A runtime and its pending debts, as far as the trail needs them."""

    def __init__(self) -> None:
        self.buckets, self.clock, self.settings = Shelf(), TestClock(), Settings()
        self.trail = Trail(self, self)  # type: ignore[arg-type]

    def also(self, pay: Any) -> None:
        """Remember what the trail wants done when debts are paid."""
        self.pay = pay

    def wake(self) -> None:
        """Do nothing: the test pays."""


def note(client_id: str, task_id: str = "task", **more: Any) -> Note:
    return Note(kind="refused", at=1, task_id=task_id, client_id=client_id, **more)


def test_a_note_reaches_the_trail_of_its_clients_shard() -> None:
    process = Process()
    process.trail.add(note("acme"))
    process.pay()
    assert process.buckets.read == [note("acme")]
    assert process.buckets.taken[0][0] == shard_of("acme", process.settings.shards)
    process.pay()
    assert len(process.buckets.taken) == 1


def test_l10_a_client_that_is_refused_all_the_time_leaves_few_notes_and_their_number() -> None:
    """Given 10,000 refusals of one client, then another's note is there, and the next window tells how many more."""
    process = Process()
    for number in range(10_000):
        process.trail.add(note("loud", str(number)))
    process.trail.add(note("quiet"))
    process.pay()
    clients = [found.client_id for found in process.buckets.read]
    assert clients.count("loud") == room.OF_ONE_CLIENT_MAX
    assert clients.count("quiet") == 1
    process.clock.advance(timedelta(seconds=room.WINDOW_SECONDS))
    process.trail.add(note("loud", "next"))
    process.pay()
    assert process.buckets.read[-1].more == 10_000 - room.OF_ONE_CLIENT_MAX


def test_l10_what_would_be_dropped_need_not_be_made_and_is_counted_all_the_same() -> None:
    process = Process()
    assert not process.trail.drops("loud")
    for number in range(room.OF_ONE_CLIENT_MAX):
        process.trail.add(note("loud", str(number)))
    assert process.trail.drops("loud")
    assert not process.trail.drops("quiet")
    process.clock.advance(timedelta(seconds=room.WINDOW_SECONDS))
    assert not process.trail.drops("loud")
    process.trail.add(note("loud", "next"))
    process.pay()
    assert process.buckets.read[-1].more == 1


def test_l9_what_redis_does_not_take_is_kept_within_the_bound_and_asked_for_after_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "OF_ONE_CLIENT_MAX", 10_000)
    process = Process()
    process.buckets.away = True
    for number in range(1_500):
        process.trail.add(note("acme", str(number)))
    process.pay()
    process.buckets.away = False
    process.trail.add(note("acme", "last"))
    process.pay()
    assert process.buckets.taken == []
    process.clock.advance(timedelta(seconds=room.PAUSE_SECONDS))
    process.pay()
    found = [each.task_id for each in process.buckets.read]
    assert len(found) == room.WAITING_MAX
    assert (found[-2], found[-1]) == ("1499", "last")


def test_what_cannot_be_noted_raises_nothing(caplog: pytest.LogCaptureFixture) -> None:
    process = Process()
    process.trail.add(note("acme", reason=object()))
    assert "is not noted" in caplog.text


def test_long_texts_are_cut_and_foreign_bytes_are_no_note() -> None:
    read = decode_note(encode_note(note("acme", "t" * 1_024, reason="r" * 5_000)))
    assert read is not None
    assert (len(read.task_id), len(read.reason)) == (1_024, 300)
    assert decode_note(b"{") is None
    assert decode_note(b'{"kind": "unheard of"}') is None


@pytest.mark.parametrize("spoiled", [b"[" * 60_000, b'{"at":' + b"9" * 20, b'{"at":-1', b'{"more":-5,"at":1'])
def test_what_is_no_note_is_passed_over(spoiled: bytes) -> None:
    """Whoever explains a task would end with a traceback for a note of another."""
    assert decode_note(spoiled + b',"kind":"refused","task_id":"task"}') is None
