"""A delivery that cannot be billed now waits longer from time to time, and never for ever (L9)."""

from __future__ import annotations

from billing.task.putting_off import WAIT_SECONDS_MAX, wait_seconds


def test_the_wait_doubles_up_to_its_bound() -> None:
    """Given more and more waits, then each is twice the one before, up to a minute."""
    waits = [wait_seconds(number, 5.0, 0.5) for number in range(8)]

    assert waits == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0, 60.0, 60.0]
    assert wait_seconds(1_000_000, 5.0, 0.5) == WAIT_SECONDS_MAX


def test_chance_spreads_the_wait_over_a_half_of_it() -> None:
    """Given tasks that were put off together, then they do not come back together."""
    assert (wait_seconds(0, 4.0, 0.0), wait_seconds(0, 4.0, 1.0)) == (3.0, 5.0)
