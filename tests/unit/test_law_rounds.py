"""How a law stands after its slices: what was found stands for a whole round, and crosses once."""

from __future__ import annotations

from datetime import UTC, datetime

from billing.observability.laws.law import Checked, Slice, after, is_crossing

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def walked(*slices: Slice) -> list[Checked]:
    """Return how a law stood after each of some slices."""
    stands: list[Checked] = []
    for one in slices:
        stands.append(after(stands[-1] if stands else None, "L1 ceiling", one, NOW))
    return stands


def clean(resume_after: str = "") -> Slice:
    return Slice(examined=1, resume_after=resume_after)


def broken(found: str, resume_after: str = "") -> Slice:
    return Slice(examined=1, violations=1, found=found, resume_after=resume_after)


def test_what_a_slice_found_stands_until_a_whole_round_found_nothing() -> None:
    """Given a violation in the middle of a round, then no clean slice alone makes the law hold again."""
    stands = walked(
        clean("a"), broken("b differs", "b"), clean(), clean("a"), clean("b"), clean(), clean("a"), broken("z", "b")
    )

    assert [checked.violations for checked in stands] == [0, 1, 1, 1, 1, 0, 0, 1]
    assert stands[4].found == "b differs"
    crossings = [is_crossing(before, now) for before, now in zip([None, *stands], stands, strict=False)]
    assert [place for place, crossing in enumerate(crossings) if crossing] == [1, 7]


def test_violations_of_a_round_are_added_up() -> None:
    """Given two slices with violations, then the round has both, and names the first."""
    stands = walked(broken("first", "a"), broken("second"))

    assert [(checked.violations, checked.found) for checked in stands] == [(1, "first"), (2, "first")]


def test_what_every_look_sees_as_a_whole_is_gone_when_a_look_does_not_see_it() -> None:
    """Given a trigger that is missing while months are counted, then it counts once, and not after it is back."""
    seen = Slice(examined=1, at_once=2, found_at_once="two triggers", resume_after="month")
    stands = walked(seen, seen, clean("month"))

    assert [checked.violations for checked in stands] == [2, 2, 0]
