"""What was noted lately is remembered for its time, and so many of it (L9)."""

from __future__ import annotations

from datetime import timedelta

from billing.core.lately import Lately
from billing.testing.clock import TestClock


def test_a_name_is_remembered_until_its_time_is_over() -> None:
    clock = TestClock()
    lately = Lately(clock, seconds=60.0, count=10)
    lately.add("a")
    clock.advance(timedelta(seconds=59))
    assert "a" in lately
    assert "b" not in lately
    clock.advance(timedelta(seconds=1))
    assert "a" not in lately


def test_l9_the_name_that_was_noted_first_makes_room() -> None:
    """Noted again, it is the last to go."""
    lately = Lately(TestClock(), seconds=60.0, count=2)
    for name in ("a", "b", "a", "c"):
        lately.add(name)
    assert [name in lately for name in "abc"] == [True, False, True]
