"""When periods begin and grants expire: by the calendar, each once, never two at a time."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from billing.core.errors import InvalidValue
from billing.ledger.cycles import EVERY, ROLLOVER_MAX, Cycle, check_cycle, due_periods

#: No outcome depends on how fast the machine is.
AT_ANY_SPEED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
INSTANTS = st.datetimes(datetime(2000, 1, 1), datetime(2150, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
ROLLOVERS = st.none() | st.integers(0, ROLLOVER_MAX)
CYCLES = st.builds(check_cycle, every=st.sampled_from(EVERY), starts_at=INSTANTS, ends_at=st.none(), rollover=ROLLOVERS)
LEAP = datetime(2024, 1, 31, 9, 30, tzinfo=UTC)


def test_a_month_that_starts_on_the_31st_is_clamped_and_returns_to_it() -> None:
    """Given a start on January 31st of a leap year, then months begin on their last day, and on the 31st again."""
    cycle = check_cycle(starts_at=LEAP)

    days = [cycle.start_of(number) for number in range(14)]

    assert [(day.month, day.day) for day in days[:4]] == [(1, 31), (2, 29), (3, 31), (4, 30)]
    assert (days[13].year, days[13].month, days[13].day) == (2025, 2, 28)
    assert {(day.hour, day.minute) for day in days} == {(9, 30)}


@AT_ANY_SPEED
@given(cycle=CYCLES, number=st.integers(0, 1_000))
@example(cycle=check_cycle(starts_at=LEAP), number=1)
def test_an_instant_lies_in_one_period(cycle: Cycle, number: int) -> None:
    """Given a period, then its first and last microsecond lie in it, and the one before in the period before."""
    start, end = cycle.start_of(number), cycle.start_of(number + 1)

    assert start < end
    assert cycle.number_at(start) == number
    assert cycle.number_at(end - timedelta(microseconds=1)) == number
    assert cycle.number_at(end) == number + 1


@AT_ANY_SPEED
@given(starts_at=INSTANTS, number=st.integers(0, 1_000))
def test_months_are_those_of_the_calendar(starts_at: datetime, number: int) -> None:
    """Given a start, then month n begins n calendar months later, on its day or the last one that there is."""
    found = check_cycle(starts_at=starts_at).start_of(number)
    months = (found.year - starts_at.year) * 12 + found.month - starts_at.month

    assert months == number
    assert found.day == min(starts_at.day, calendar.monthrange(found.year, found.month)[1])


@AT_ANY_SPEED
@given(cycle=CYCLES, looks=st.lists(INSTANTS, max_size=20), most=st.integers(1, 5))
def test_each_period_is_due_once_whenever_somebody_looks(cycle: Cycle, looks: list[datetime], most: int) -> None:
    """Given looks at any instants, then periods come in order, each once, none early, none whose grant has expired."""
    following, granted = 0, []
    for now in sorted(looks):
        before = following
        periods, following = due_periods(cycle, following, now, most)
        assert len(periods) <= most
        assert following >= before
        for period in periods:
            assert period.starts_at <= now
            assert period.expires_at is None or period.expires_at > now
        granted += [period.number for period in periods]

    assert granted == sorted(set(granted))
    assert all(number < following for number in granted)


@AT_ANY_SPEED
@given(cycle=CYCLES, now=INSTANTS)
def test_what_is_usable_is_granted(cycle: Cycle, now: datetime) -> None:
    """Given a first look long after the start, then each period is granted whose grant is usable yet, and no other."""
    current = cycle.number_at(now)
    following = max(0, current - 500)  # the first look is not ages after the start
    periods, _ = due_periods(cycle, following, now, most=10_000)

    usable = [cycle.period(number) for number in range(max(0, current - ROLLOVER_MAX - 2), current + 1)]
    wanted = [period for period in usable if period.expires_at is None or period.expires_at > now]
    if cycle.rollover is None:
        assert [period.number for period in periods] == list(range(following, current + 1))
    else:
        assert periods == wanted


def test_each_rollover_keeps_a_grant_for_so_many_further_periods() -> None:
    month = [datetime(2026, number, 1, tzinfo=UTC) for number in range(1, 13)]
    expiries = [check_cycle(starts_at=month[0], rollover=rollover).period(2).expires_at for rollover in (0, 1, 6, None)]

    assert expiries == [month[3], month[4], month[9], None]


def test_no_period_begins_at_or_after_the_end() -> None:
    """Given an end, then a period that begins right then is none, and the last one keeps its full length."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    cycle = check_cycle(every="week", starts_at=start, ends_at=start + timedelta(weeks=2), rollover=None)
    periods, following = due_periods(cycle, 0, start + timedelta(weeks=9), most=100)

    assert [period.number for period in periods] == [0, 1]
    assert (following, cycle.has(following)) == (2, False)


def test_a_start_is_in_utc_to_the_millisecond() -> None:
    given_start = datetime(2026, 3, 31, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=-5)))
    assert check_cycle(starts_at=given_start).starts_at == datetime(2026, 4, 1, 4, 59, 59, 999_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("every", "year"),
        ("every", 5),
        ("rollover", -1),
        ("rollover", ROLLOVER_MAX + 1),
        ("rollover", True),
        ("rollover", "1"),
        ("starts_at", datetime(2026, 1, 1)),  # noqa: DTZ001
        ("starts_at", datetime(1999, 12, 31, tzinfo=UTC)),
        ("starts_at", datetime(2200, 1, 1, tzinfo=UTC)),
        ("starts_at", "2026-01-01"),
        ("ends_at", LEAP),
        ("ends_at", "soon"),
    ],
)
def test_what_no_calendar_needs_is_refused(field: str, value: object) -> None:
    arguments: dict[str, object] = {"starts_at": LEAP, field: value}
    with pytest.raises(InvalidValue, match=rf"^{field}: [^\n]*: must be") as refused:
        check_cycle(**arguments)
    assert refused.value.field == field
