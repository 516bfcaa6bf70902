"""A run id is a UUIDv7 that every delivery of the run computes again (L3)."""

from __future__ import annotations

import uuid

from hypothesis import assume, given
from hypothesis import strategies as st

from billing.core import ids

text = st.text(max_size=40)
times = st.one_of(st.none(), st.integers(0, ids.LEGACY_MILLISECONDS - 1))
parts = st.fixed_dictionaries(
    {"client": text, "task": text, "nesting": st.integers(0, 1_000), "nonce": text, "at": times}
)


def make(parts: dict[str, object]) -> uuid.UUID:
    """Return the run id of some parts."""
    client, task, nonce = str(parts["client"]), str(parts["task"]), str(parts["nonce"])
    at, nesting = parts["at"], parts["nesting"]
    assert isinstance(nesting, int)
    assert at is None or isinstance(at, int)
    return ids.run_id(client, task, nesting=nesting, nonce=nonce, at_milliseconds=at)


@given(parts)
def test_a_run_id_is_a_valid_uuid_version_7(parts: dict[str, object]) -> None:
    """Given any parts, then version and variant are those of RFC 9562, and the text form reads back."""
    made = make(parts)

    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert uuid.UUID(str(made)) == made


@given(parts)
def test_the_same_parts_are_the_same_run(parts: dict[str, object]) -> None:
    """Given a second delivery of the same message, then its run id is the same (L3)."""
    assert make(parts) == make(dict(parts))


@given(parts, parts)
def test_any_part_that_differs_is_another_run(one: dict[str, object], other: dict[str, object]) -> None:
    """Given two submissions that differ in one part or more, then they are two runs."""
    assume(one != other)

    assert make(one) != make(other)
    for name in (name for name in one if one[name] != other[name]):
        assert make(one) != make({**one, name: other[name]}), name


@given(text, text, text)
def test_parts_do_not_run_into_each_other(start: str, middle: str, end: str) -> None:
    """Given a text cut at another place into client and task, then it is another run."""
    assume(middle)

    assert ids.run_id(start + middle, end, nesting=0, nonce="", at_milliseconds=1) != ids.run_id(
        start, middle + end, nesting=0, nonce="", at_milliseconds=1
    )


@given(parts, parts, st.lists(st.integers(0, ids.LEGACY_MILLISECONDS - 1), min_size=2, max_size=2, unique=True))
def test_run_ids_sort_by_the_time_of_their_publish(
    one: dict[str, object], other: dict[str, object], at: list[int]
) -> None:
    """Given two publishes, then the earlier has the smaller run id, so that partitions are ranges of it."""
    earlier, later = make({**one, "at": min(at)}), make({**other, "at": max(at)})

    assert earlier < later
    assert earlier.bytes < later.bytes
    assert str(earlier) < str(later)


@given(parts)
def test_the_time_bits_read_back_and_are_all_ones_for_a_sender_without_the_library(parts: dict[str, object]) -> None:
    """Given a publish time, then the id carries it; given none, its 48 time bits are all ones and sort last."""
    made, at = make(parts), parts["at"]

    assert ids.milliseconds_of(made) == (ids.LEGACY_MILLISECONDS if at is None else at)
    if at is None:
        assert str(made).startswith("ffffffff-ffff-7")
        assert made > uuid.UUID("ffffffff-ffff-0000-0000-000000000000")


def test_what_tells_acts_apart_is_fresh_each_time() -> None:
    """Given many nonces, tokens and settlement ids, then no two are the same, and each is plain ASCII."""
    for make_fresh in (ids.new_nonce, ids.new_token, ids.new_settlement_id):
        made = {make_fresh() for _ in range(1_000)}
        assert len(made) == 1_000
        assert all(one.isascii() and one.isalnum() for one in made)
