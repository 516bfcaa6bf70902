"""Billing periods of the stand-in: whole months, years, weeks and days from an anchor."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.sinks.stripe.sandbox.periods import boundary, next_boundary


def at(text: str) -> int:
    """Return the second of an instant in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("anchor", "interval", "count", "ends"),
    [
        ("2026-01-15T10:30", "month", 1, ["2026-02-15T10:30", "2026-03-15T10:30"]),
        ("2026-01-31T23:59:59", "month", 1, ["2026-02-28T23:59:59", "2026-03-31T23:59:59", "2026-04-30T23:59:59"]),
        ("2027-12-31T00:00", "month", 1, ["2028-01-31T00:00", "2028-02-29T00:00", "2028-03-31T00:00"]),
        ("2026-11-30T00:00", "month", 3, ["2027-02-28T00:00", "2027-05-30T00:00"]),
        (
            "2028-02-29T00:00",
            "year",
            1,
            ["2029-02-28T00:00", "2030-02-28T00:00", "2031-02-28T00:00", "2032-02-29T00:00"],
        ),
        ("2026-01-01T00:00", "week", 2, ["2026-01-15T00:00", "2026-01-29T00:00"]),
        ("2026-01-01T05:00", "day", 1, ["2026-01-02T05:00", "2026-01-03T05:00"]),
    ],
)
def test_a_period_ends_where_the_anchor_says(anchor: str, interval: str, count: int, ends: list[str]) -> None:
    """The 31st clamps to the month's last day, and comes back."""
    now = at(anchor)
    for end in ends:
        now = next_boundary(at(anchor), interval, count, now)
        assert now == at(end)


@given(
    st.integers(at("2020-01-01"), at("2040-01-01")),
    st.integers(-2_000 * 86_400, 2_000 * 86_400),
    st.sampled_from(["day", "week", "month", "year"]),
    st.integers(1, 6),
)
def test_periods_leave_no_gap(anchor: int, since: int, interval: str, count: int) -> None:
    """Every second lies in exactly one period: after a boundary that is not after it, before the next."""
    end = next_boundary(anchor, interval, count, anchor + since)
    ends = [boundary(anchor, interval, count, number) for number in range(-2_100, 2_100)] if interval == "day" else []
    assert end > anchor + since
    if ends and count == 1:
        assert end == min(one for one in ends if one > anchor + since)
    before = end - 1
    assert next_boundary(anchor, interval, count, before) == end
    assert next_boundary(anchor, interval, count, end) > end
