"""Milliseconds since the Unix epoch are computed in integers; instants are aware and in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.core.clock import SystemClock, from_milliseconds, to_milliseconds

_YEAR_9999 = 253_402_300_799_999


@given(st.integers(0, _YEAR_9999))
def test_milliseconds_come_back_exactly(milliseconds: int) -> None:
    """Given any instant from 1970 to 9999 in milliseconds, then the way there and back loses nothing."""
    instant = from_milliseconds(milliseconds)

    assert instant.utcoffset() == timedelta(0)
    assert to_milliseconds(instant) == milliseconds


@given(st.datetimes(datetime(1970, 1, 2), datetime(9999, 1, 1)), st.integers(-720, 720))  # noqa: DTZ001 - zone below
def test_the_zone_does_not_move_the_instant(naive: datetime, offset_minutes: int) -> None:
    """Given one instant written in two zones, then its milliseconds are the same, cut and never rounded."""
    local = naive.replace(tzinfo=timezone(timedelta(minutes=offset_minutes)))
    whole = timedelta(milliseconds=1)

    assert to_milliseconds(local) == to_milliseconds(local.astimezone(UTC))
    assert timedelta(0) <= local - from_milliseconds(to_milliseconds(local)) < whole


def test_a_naive_time_is_refused() -> None:
    """Given a time without a zone, then nothing is guessed."""
    with pytest.raises(TypeError):
        to_milliseconds(datetime(2026, 1, 1))  # noqa: DTZ001 - the point of the test


def test_the_system_clock_is_aware_and_its_monotonic_time_never_goes_back() -> None:
    """Given the machine's clock, then it answers in UTC, and the other one only goes on."""
    clock = SystemClock()

    assert clock.now().tzinfo is UTC
    times = [clock.monotonic() for _ in range(100)]
    assert times == sorted(times)
