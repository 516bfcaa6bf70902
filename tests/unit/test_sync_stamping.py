"""Minutes of what is planned together: each is free, none is shared, and few taken ones are looked at (L9)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from billing.sinks.sync.log import Plan
from billing.sinks.sync.planning.places import Place
from billing.sinks.sync.planning.stamping import TAKEN_FEW, TAKEN_MAX, Wanted, stamps

START = datetime(2026, 3, 15, 14, 37, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
FIRST = START.replace(minute=38, second=30)
PLACE = Place(start=START, end=START + timedelta(days=30))


class Taken:
    """The part of a `Plan` that knows taken minutes of one customer and meter; it notes how many were asked for."""

    def __init__(self, taken: set[datetime]) -> None:
        self._taken = taken
        self.most: list[int] = []

    def taken(self, asked: Sequence[tuple[str, str, datetime]], *, most: int) -> list[set[datetime]]:
        """Return the latest ones."""
        self.most.append(most)
        return [set(sorted((at for at in self._taken if at <= last), reverse=True)[:most]) for _, _, last in asked]


def wanted(*counts: int) -> list[Wanted]:
    """Return what is wanted of one customer and meter, in one place, several times."""
    return [Wanted(customer_id="cus_1", event_name="credits", place=PLACE, count=count) for count in counts]


@given(st.sets(st.integers(0, 80)), st.integers(1, 80), st.lists(st.integers(1, 5), max_size=3))
def test_each_stamp_is_free_and_no_two_are_one(taken: set[int], age: int, counts: list[int]) -> None:
    """Given any taken minutes, then each want gets the latest that are left, or all there are."""
    now = FIRST + age * MINUTE
    log = Taken({FIRST + number * MINUTE for number in taken})

    found = stamps(cast("Plan", log), wanted(*counts), now)

    flat = [stamp for stamps_ in found for stamp in stamps_]
    free = [FIRST + number * MINUTE for number in range(age, -1, -1) if number not in taken]
    assert sorted(flat, reverse=True) == free[: sum(counts)]
    assert len(set(flat)) == len(flat)


def test_of_a_long_history_only_a_few_minutes_are_looked_at() -> None:
    """Given thousands of minutes that are taken, when the latest is free, then no more than a few are read."""
    log = Taken({FIRST + 15 * number * MINUTE for number in range(2_000)})

    ((stamp,),) = stamps(cast("Plan", log), wanted(1), START + timedelta(days=29))

    assert stamp == (START + timedelta(days=29)).replace(second=30) - MINUTE
    assert log.most == [TAKEN_FEW + 1]


def test_where_few_leave_no_room_more_are_looked_at() -> None:
    log = Taken({FIRST + number * MINUTE for number in range(10, 100)})

    found: Any = stamps(cast("Plan", log), wanted(3), FIRST + 99 * MINUTE)

    assert found == [[FIRST + number * MINUTE for number in (9, 8, 7)]]
    assert log.most == [TAKEN_FEW + 3, TAKEN_MAX]
