"""Which increment carries which line: whatever the lines and the plans, the lines of a part add up to the part."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.admin.receipt_line import Reported
from billing.admin.receipt_parts import Part, Parts

HOUR = datetime(2026, 11, 21, 8, tzinfo=UTC)


def part(number: int, start: int, end: int) -> Part:
    """Make a part of one rollup row."""
    return Part(sku="page", hour=HOUR, credits_from=start, credits_to=end, increment_id=number, state="sent")


def carried(*given: tuple[int, int]) -> list[Reported]:
    """Return what increments carry, as (increment, credits)."""
    return [Reported(increment_id=number, state="sent", credits=credits_) for number, credits_ in given]


@pytest.mark.parametrize(
    ("credits", "total", "expected"),
    [
        (10, 10, [(1, 10)]),  # begins the row
        (5, 15, [(1, 5)]),  # ends where its part ends
        (1, 16, [(2, 1)]),  # begins where the next begins
        (10, 20, [(1, 5), (2, 5)]),  # lies in both
        (40, 40, [(1, 15), (2, 15)]),  # and beyond both
        (5, 35, []),  # after both
        (0, 15, []),  # nothing is nowhere
        (-10, -10, [(3, -8), (4, -2)]),  # what was returned has a running total of its own
        (-5, -17, [(4, -3)]),  # and ends beyond both of its parts
    ],
)
def test_a_line_is_carried_by_the_parts_that_it_overlaps(
    credits: int, total: int, expected: list[tuple[int, int]]
) -> None:
    parts = Parts([part(4, -8, -15), part(2, 15, 30), part(1, 0, 15), part(3, 0, -8)])
    assert list(parts.carrying("page", HOUR, credits, total)) == carried(*expected)
    assert parts.carrying("kib", HOUR, credits, total) == ()
    assert parts.carrying("page", HOUR + timedelta(hours=1), credits, total) == ()


@given(
    lines=st.lists(st.integers(-50, 100), max_size=40),
    cuts=st.lists(st.integers(-1_000, 2_000), max_size=10, unique=True),
)
def test_the_lines_of_a_part_add_up_to_the_part(lines: list[int], cuts: list[int]) -> None:
    """Given any lines, corrections too, and any parts of what they come to either way, then the sums agree."""
    used, returned = sum(max(0, line) for line in lines), sum(min(0, line) for line in lines)
    ups = [0, *sorted(cut for cut in cuts if 0 < cut <= used)]
    downs = [0, *sorted((cut for cut in cuts if returned <= cut < 0), reverse=True)]
    wanted = dict(enumerate([*pairwise(ups), *pairwise(downs)], 1))
    parts = Parts(part(number, start, stop) for number, (start, stop) in wanted.items())
    found: Counter[int] = Counter()
    totals = {True: 0, False: 0}
    for credits_ in lines:
        totals[credits_ < 0] += credits_
        for reported in parts.carrying("page", HOUR, credits_, totals[credits_ < 0]):
            found[reported.increment_id] += reported.credits
    assert {number: found[number] for number in wanted} == {n: stop - start for n, (start, stop) in wanted.items()}
