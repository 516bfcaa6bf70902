"""The span of a receipt: a month unless told otherwise, its end not included, and never an empty one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from billing.admin.receipts import DAYS_MAX, LINES_WANTED, days_after
from billing.admin.spans import bounded, checked, span
from billing.core.errors import InvalidValue
from billing.fulfillment.selection import Selection

NOW = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)


def at(text: str) -> datetime:
    """Read an instant in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, ("2026-12-01", "2027-01-01")),
        ("2026-02-10T07:00", None, ("2026-02-10T07:00", "2026-03-01")),
        ("2024-01-31", None, ("2024-01-31", "2024-02-01")),
        (None, "2026-03-01", ("2026-02-01", "2026-03-01")),
        (None, "2026-03-01T00:00:01", ("2026-03-01", "2026-03-01T00:00:01")),
        ("2020-01-01", "2026-03-01", ("2020-01-01", "2026-03-01")),
    ],
)
def test_a_missing_end_is_that_of_the_month(start: str | None, end: str | None, expected: tuple[str, str]) -> None:
    found = span(at(start) if start else None, at(end) if end else None, NOW)
    assert found == (at(expected[0]), at(expected[1]))


def test_months_begin_in_utc() -> None:
    tokyo = timezone(timedelta(hours=9))
    assert span(datetime(2026, 12, 1, 8, tzinfo=tokyo), None, NOW) == (at("2026-11-30T23:00"), at("2026-12-01"))


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("2026-01-02", "2026-01-01", "from: '2026-01-02T00:00:00+00:00': must be before 2026-01-01"),
        ("2026-01-02", "2026-01-02", "from: "),
        ("0001-01-01", None, "from: "),
        (None, "9999-12-31", "to: '9999-12-31T00:00:00+00:00': must be from 2000-01-01 to 3000-01-01"),
        ("2027-01-01", "2026-01-01", "from: "),
    ],
)
def test_a_span_that_is_none_is_refused(start: str | None, end: str | None, message: str) -> None:
    with pytest.raises(InvalidValue, match=message.replace("+", r"\+")):
        span(at(start) if start else None, at(end) if end else None, NOW)


def test_an_instant_needs_a_zone() -> None:
    with pytest.raises(InvalidValue, match=r"^to: '2026-01-01T00:00:00': must have a time zone"):
        span(None, datetime(2026, 1, 1), NOW)  # noqa: DTZ001 - the point of the test


def test_a_statement_reads_more_days_while_they_are_few_lines_and_fewer_at_once_when_they_are_many() -> None:
    days = [1]
    for lines in (30, 60, 120, 240, LINES_WANTED, LINES_WANTED + 1, LINES_WANTED + 1, 10**6, 10**6, 10):
        days.append(days_after(days[-1], lines))
    assert days == [1, 2, 4, 8, DAYS_MAX, 8, 4, 2, 1, 1, 2]


@pytest.mark.parametrize("wrong", ["a\udcff", "a\0", "x" * 1_025])
def test_an_id_that_the_log_cannot_have_is_refused(wrong: str) -> None:
    """A byte that is no UTF-8 comes from a terminal as half a surrogate pair, which no database takes."""
    for name, of in (("correlation_id", Selection(correlation_id=wrong)), ("root_id", Selection(root_id=wrong))):
        message = rf"^{name}: .*: must be at most 1024 characters of UTF-8 without NUL"
        with pytest.raises(InvalidValue, match=message):
            bounded(of, NOW)
        with pytest.raises(InvalidValue, match=message):
            checked(of)
