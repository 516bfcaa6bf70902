"""Billing periods: hours tile, stamps lie inside, late usage goes where the policy says, what is read is kept."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.core.settings import StripeLateUsage
from billing.sinks.sink import Kind
from billing.sinks.sync.planning import minutes
from billing.sinks.sync.planning.periods import (
    CLOSING_MARGIN,
    HOUR,
    MINUTE,
    KnownPeriod,
    Period,
    calendar,
    closes_at,
    closing,
    known_period_of,
    merged,
    period_of,
)
from billing.sinks.sync.planning.places import Place, Places

INSTANTS = st.datetimes(datetime(2024, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - given above
SECONDS = INSTANTS.map(lambda instant: instant.replace(microsecond=0))
GRACE = timedelta(hours=1)
ANCHOR = datetime(2026, 1, 31, 14, 37, 12, tzinfo=UTC)


def monthly(anchor: datetime, count: int) -> list[KnownPeriod]:
    """Return periods of months from an anchor, whose day is the month's last where it has none of that number."""
    starts = [anchor]
    for number in range(1, count + 1):
        years, month = divmod(anchor.month - 1 + number, 12)
        first = anchor.replace(year=anchor.year + years, month=month + 1, day=1)
        last = (first + timedelta(days=32)).replace(day=1) - timedelta(days=1)
        starts.append(first.replace(day=min(anchor.day, last.day)))
    return [
        KnownPeriod(start=start, end=end, closes_at=closes_at(end, grace=GRACE))
        for start, end in itertools.pairwise(starts)
    ]


@pytest.mark.parametrize(
    ("hour", "start", "end"),
    [
        ("2026-02-28T23:00", "2026-02-01", "2026-03-01"),
        ("2024-02-29T00:00", "2024-02-01", "2024-03-01"),
        ("2026-12-31T23:00", "2026-12-01", "2027-01-01"),
        ("2027-01-01T00:00", "2027-01-01", "2027-02-01"),
    ],
)
def test_the_calendars_billing_period_is_the_month_in_utc(hour: str, start: str, end: str) -> None:
    instants = [datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (hour, start, end)]

    assert period_of(instants[0]) == Period(start=instants[1], end=instants[2])
    (known,) = calendar([instants[0]], grace=timedelta(hours=72))
    assert (known.start, known.end) == (instants[1], instants[2])
    assert known.closes_at == instants[2] + timedelta(hours=72) - CLOSING_MARGIN


@given(SECONDS, st.integers(0, 14 * 31 * 24))
def test_periods_of_any_anchor_tile_the_hours_from_the_first_to_the_last(anchor: datetime, hours: int) -> None:
    """Given any second of any day as anchor, the 31st too, then each hour is of one period and none is of two."""
    known = monthly(anchor, 12)
    hour = known[0].usage_start + hours * HOUR

    found = [period for period in known if period.usage_start <= hour < period.usage_end]

    assert found == ([] if hour >= known[-1].usage_end else [known_period_of(hour, known)])


def test_an_anchor_on_the_31st_at_an_odd_second() -> None:
    """Given an anchor at 14:37:12 of the 31st, then the hour 14 of the month's last day is of the period it begins."""
    january, february, march = monthly(ANCHOR, 3)

    assert [period.end for period in (january, february, march)] == [
        datetime(2026, 2, 28, 14, 37, 12, tzinfo=UTC),
        datetime(2026, 3, 31, 14, 37, 12, tzinfo=UTC),
        datetime(2026, 4, 30, 14, 37, 12, tzinfo=UTC),
    ]
    boundary = datetime(2026, 2, 28, 14, tzinfo=UTC)
    assert known_period_of(boundary - HOUR, [january, february]) == january
    assert known_period_of(boundary, [january, february]) == february
    # While the next one is not known, its first hour is of none.
    assert known_period_of(boundary, [january]) is None


def test_the_hour_in_which_a_subscription_ends_is_its_own_unless_another_begins_in_it() -> None:
    ended = dataclasses.replace(monthly(ANCHOR, 1)[0], ended=True)
    hour = ended.end.replace(minute=0, second=0)
    again = KnownPeriod(start=ended.end + 5 * MINUTE, end=ended.end + 24 * HOUR)

    assert known_period_of(hour, [ended]) == ended
    assert known_period_of(hour + HOUR, [ended]) is None
    assert known_period_of(hour, [ended, again]) == again


@given(SECONDS, st.timedeltas(timedelta(minutes=2), timedelta(days=400)), INSTANTS)
def test_a_stamps_whole_minute_lies_in_its_period_and_in_the_past(
    start: datetime, length: timedelta, now: datetime
) -> None:
    """Given a period of any seconds, then each stamp is at second 30 of a minute that is wholly inside it."""
    end = start + length
    first, last = minutes.earliest(start), minutes.latest(start, end, now)

    if last is None:
        assert now < first or end < first + MINUTE / 2
        return
    for stamp in (first, last):
        assert (stamp.second, stamp.microsecond) == (30, 0)
        assert start <= stamp - MINUTE / 2
        assert stamp + MINUTE / 2 <= end
    assert first - MINUTE < start + MINUTE / 2
    assert first <= last <= now
    assert last + MINUTE > min(now, end - MINUTE / 2)


@given(SECONDS, SECONDS)
def test_no_stamp_is_older_than_what_a_sink_takes(start: datetime, oldest: datetime) -> None:
    found = minutes.earliest(start, oldest)

    assert found >= max(oldest, minutes.earliest(start))
    assert found < max(oldest + MINUTE, minutes.earliest(start) + MINUTE)


@given(st.sets(st.integers(0, 12)), st.integers(0, 12), st.integers(1, 6))
def test_minutes_are_free_the_latest_first_and_never_shared(taken: set[int], length: int, count: int) -> None:
    last = ANCHOR.replace(second=30)

    found = minutes.free(last, last - length * MINUTE, {last - n * MINUTE for n in taken}, count)

    free = [n for n in range(length + 1) if n not in taken]
    assert found == [last - n * MINUTE for n in free[:count]]


POLICIES = st.sampled_from(["carry_forward", "invoice_item", "write_off"])


@given(
    anchor=SECONDS,
    hours=st.integers(-100, 100 * 24),
    later=st.integers(0, 100 * 24 * 60),
    policy=POLICIES,
    ended=st.booleans(),
)
def test_usage_goes_only_where_an_invoice_still_takes_it(
    anchor: datetime, hours: int, later: int, policy: StripeLateUsage, *, ended: bool
) -> None:
    """Given usage of any hour, then a meter event goes into an open period of that hour or a later one."""
    known = monthly(anchor, 3)
    known[-1] = dataclasses.replace(known[-1], ended=ended)
    now = anchor + later * MINUTE
    hour = known[0].usage_start + hours * HOUR

    found = Places(known, late_usage=policy, now=now).of(hour)

    own = known_period_of(hour, known)
    if own is not None and (own.closes_at is None or now < own.closes_at):
        assert found == Place(start=own.start, end=own.end, closes_at=own.closes_at)
    elif isinstance(found, str):
        assert policy == "carry_forward" or own is None
        assert not any(
            period.start <= now and period.is_open(now) and period.usage_start > hour for period in known[-1:]
        )
    elif policy == "carry_forward":
        assert found.kind is Kind.METER_EVENT
        assert not found.written_off
        assert found.closes_at is None or now < found.closes_at
        assert hour < found.start <= now
    else:
        assert found.is_late
        assert found.written_off == (policy == "write_off")
        assert found.closes_at is None
        assert found.start < hour + HOUR
        assert hour < found.end


def test_usage_of_no_period_waits_and_says_why() -> None:
    """Given no period, one that has not begun, or one that has ended, then usage waits for one that takes it."""
    january, february = monthly(ANCHOR, 2)
    ended = dataclasses.replace(january, ended=True)
    now, boundary = january.end - timedelta(minutes=5), january.end.replace(minute=0, second=0)

    def reason(known: list[KnownPeriod], hour: datetime, at: datetime = now) -> object:
        return Places(known, late_usage="carry_forward", now=at).of(hour)

    assert reason([], boundary) == "no billing period is known"
    assert reason([january], boundary) == "its period has not begun"
    assert reason([ended], boundary + HOUR) == "its subscription has ended"
    after = january.end + GRACE
    assert reason([january], boundary - HOUR, after) == "its period has closed, and no later one is open"
    assert reason([january, february], boundary - HOUR, after) == Place(
        start=february.start, end=february.end, closes_at=february.closes_at
    )


def test_usage_before_the_first_subscription_is_late_usage_of_its_month() -> None:
    """Given usage of three hours before a first period, when it is not carried on, then its gap is its period."""
    (january,) = monthly(ANCHOR, 1)
    hour = january.usage_start - 3 * HOUR

    found = Places([january], late_usage="invoice_item", now=january.start + HOUR).of(hour)

    assert found == Place(start=datetime(2026, 1, 1, tzinfo=UTC), end=january.usage_start, kind=Kind.INVOICE_ITEM)


@given(
    anchor=SECONDS,
    count=st.integers(1, 4),
    begins=st.integers(1, 90 * 24 * 60),
    lasts=st.integers(1, 40 * 24 * 60),
    nothing=st.booleans(),
)
def test_what_is_kept_never_overlaps_and_keeps_what_had_ended(
    anchor: datetime, count: int, begins: int, lasts: int, *, nothing: bool
) -> None:
    """Given any period that a sink names, or none, then no hour is of two periods, and past ones stay."""
    known = monthly(anchor, count)
    read_at = anchor + begins * MINUTE
    found = [] if nothing else [KnownPeriod(start=read_at, end=read_at + lasts * MINUTE)]

    kept = merged(known, found, read_at)

    assert all(one.end <= following.start for one, following in itertools.pairwise(kept))
    past = [period for period in known if period.end <= read_at]
    assert kept[: len(past)] == past
    assert set(found) <= set(kept)
    assert merged(kept, found, read_at) == kept
    for old in known:
        new = next((period for period in kept if period.start == old.start), None)
        if new is not None and new not in found:
            assert new.end <= old.end
            assert old.closes_at is not None
            assert new.closes_at is not None
            assert new.closes_at <= old.closes_at


def test_a_cancellation_that_is_found_later_closes_what_was_planned_and_nothing_opens_again() -> None:
    """Given an increment of a period, when its subscription turns out to have ended, then it closes at once."""
    (january,) = monthly(ANCHOR, 1)
    read_at = ANCHOR + timedelta(days=3)
    assert january.closes_at is not None

    (gone,) = merged([january], [], read_at)
    assert (gone.end, gone.ended, gone.closes_at) == (read_at, True, read_at)
    assert closing(january.start, january.closes_at, [gone], read_at) == read_at
    assert closing(january.start, read_at, [january], read_at + HOUR) == read_at
    assert closing(january.start - HOUR, january.closes_at, [january], read_at) == read_at
    assert closing(january.start, january.closes_at, [], read_at) == january.closes_at


def test_a_period_closes_before_its_invoice_is_final() -> None:
    end = datetime(2026, 2, 1, tzinfo=UTC)

    assert closes_at(end, grace=timedelta(hours=72)) == end + timedelta(hours=72) - timedelta(minutes=10)
    assert closes_at(end, grace=timedelta(hours=72), ended=True) == end - timedelta(minutes=10)


def test_stripes_bound_on_age_leaves_a_day_to_wait() -> None:
    assert timedelta(days=35) - minutes.AGE_MAX == timedelta(days=1)
