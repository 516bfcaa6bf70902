"""The batch: bounded by count, bytes and age, in order, and cut so that its last tag covers exactly it (L9)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from billing.fulfillment.backoff import Backoff
from billing.fulfillment.batch import Batch, Received
from billing.fulfillment.delivery import Poison


def received(tag: int, size: int = 1) -> Received:
    """Return a message of `size` bytes."""
    return Received(body=b"x" * size, queue="q", decoded=Poison(reason="test"), tag=tag)


def a_batch(*, events_max: int = 3, bytes_max: int = 100, age_max_seconds: float = 1.0) -> Batch:
    """Return an empty batch."""
    return Batch(events_max=events_max, bytes_max=bytes_max, age_max_seconds=age_max_seconds)


def test_given_few_young_messages_then_it_is_due_by_age_alone() -> None:
    """L9: a message waits no longer than the age, counted from the first one."""
    batch = a_batch()
    assert not batch.due(0.0)
    assert batch.seconds_left(0.0) is None
    batch.add(received(1), now=10.0)
    batch.add(received(2), now=10.9)
    assert not batch.due(10.9)
    assert batch.due(11.0)
    assert batch.take() == [received(1), received(2)]
    assert not batch.due(99.0)


def test_given_enough_messages_then_it_is_due_at_once() -> None:
    """L9: full by count."""
    batch = a_batch()
    for tag, due in ((1, False), (2, False), (3, True), (4, True)):
        batch.add(received(tag), now=0.0)
        assert batch.due(0.0) is due
    assert [each.tag for each in batch.take()] == [1, 2, 3]
    assert len(batch) == 1


def test_given_enough_bytes_then_it_is_due_at_once_and_cut_below_the_bound() -> None:
    """L9: full by bytes; a message that is larger than the bound goes alone."""
    batch = a_batch()
    for tag, size in ((1, 60), (2, 60), (3, 500), (4, 1)):
        batch.add(received(tag, size), now=0.0)
    assert batch.full
    assert [[each.tag for each in batch.take()] for _ in range(4)] == [[1], [2], [3], [4]]
    assert not batch.full


def test_given_the_channel_is_lost_then_nothing_of_it_is_left() -> None:
    """Tags of a lost channel must not be acked on the next one."""
    batch = a_batch()
    batch.add(received(1), now=0.0)
    batch.clear()
    assert (len(batch), batch.take(), batch.seconds_left(5.0)) == (0, [], None)


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 7), st.integers(1, 90))
def test_given_any_messages_then_batches_keep_order_and_bounds(sizes: list[int], events: int, size: int) -> None:
    """Every message comes out once, in order; no batch of more than one message breaks a bound."""
    batch = a_batch(events_max=events, bytes_max=size)
    for tag, length in enumerate(sizes):
        batch.add(received(tag, length), now=0.0)
    seen: list[int | str] = []
    while taken := batch.take():
        assert len(taken) <= events
        assert len(taken) == 1 or sum(len(each.body) for each in taken) <= size
        seen += [each.tag for each in taken]
    assert seen == list(range(len(sizes)))
    assert not batch.full


def test_given_failures_in_a_row_then_waits_double_up_to_a_bound() -> None:
    """L9: every wait has a bound, in the longest outage too."""
    backoff = Backoff(first_seconds=1.0, most_seconds=10.0, chance=lambda: 1.0)
    assert [backoff.next_seconds() for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    for _ in range(2_000):
        assert backoff.next_seconds() == 10.0
    backoff.reset()
    assert Backoff(first_seconds=1.0, most_seconds=10.0, chance=lambda: 0.0).next_seconds() == 0.5
    assert backoff.next_seconds() == 1.0
