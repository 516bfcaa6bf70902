"""Confirmed entries leave the outbox once and in order, with a reserve or a flush, and are kept till then (L9, L10)."""

from __future__ import annotations

from billing.task.pending import RIDERS_MIN, Pending
from tests.unit.pending.owing import Redis


def test_confirmed_entries_are_taken_once_and_in_order(pending: Pending) -> None:
    """Given confirmed entries, when a pipeline takes them, then it has all in order, and the next one has none."""
    for number in range(3):
        pending.confirmed((number, f"{number}-0"))

    assert pending.take_confirmed() == [(0, "0-0"), (1, "1-0"), (2, "2-0")]
    assert pending.take_confirmed() == []


def test_entries_that_redis_did_not_take_are_kept(pending: Pending, redis: Redis) -> None:
    """Given a Redis that is away, when entries are flushed, then they go with a later flush."""
    pending.confirmed((1, "1-0"))
    redis.away = True
    pending.pay()
    redis.away = False
    pending.pay()
    pending.pay()

    assert redis.forgotten == [(1, "1-0")]


def test_entries_ride_with_a_reserve_only_once_they_are_enough(pending: Pending) -> None:
    """Given too few confirmed entries, then none rides: a flush takes them; given enough, then all ride together."""
    entries = [(1, f"{number}-0") for number in range(RIDERS_MIN)]
    for entry in entries[:-1]:
        pending.confirmed(entry)
    assert pending.take_riders() == []
    pending.confirmed(entries[-1])
    assert pending.take_riders() == entries
    assert pending.take_riders() == []


def test_l10_what_could_not_ride_rides_with_no_other_reserve(pending: Pending, redis: Redis) -> None:
    """Given entries that a reserve gives back, then no later reserve takes them, and a flush does."""
    entries = [(1, f"{number}-0") for number in range(RIDERS_MIN)]
    pending.give_back(entries)
    assert pending.take_riders() == []
    pending.confirmed((1, "later"))
    assert pending.take_riders() == []
    pending.pay()
    assert redis.forgotten == [*entries, (1, "later")]
