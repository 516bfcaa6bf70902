"""Where a run id belongs, which months are missing, and which month may leave the history."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from billing.core.clock import to_milliseconds
from billing.core.errors import InvalidValue
from billing.core.ids import run_id
from billing.schema.months import Partition, Places, check_age, following, missing_months, name_of, parse_month

FIRST = datetime(2026, 9, 1, tzinfo=UTC)


def bound(instant: datetime) -> uuid.UUID:
    """Return the smallest run id of an instant."""
    return uuid.UUID(int=to_milliseconds(instant) << 80)


def month(start: datetime, place: str = "history") -> Partition:
    """Make a month."""
    end = following(start)
    return Partition(name=name_of(start), schema="public", place=place, first_id=bound(start), end_id=bound(end))


def ends() -> list[Partition]:
    """Return the two permanent partitions."""
    top = uuid.UUID("ffffffff-ffff-0000-0000-000000000000")
    return [
        Partition(name="usage_history_early", schema="public", place="history", first_id=None, end_id=bound(FIRST)),
        Partition(name="usage_history_legacy", schema="public", place="history", first_id=top, end_id=None),
    ]


def test_a_run_id_belongs_to_the_partition_whose_bounds_it_lies_in() -> None:
    """Given months with a gap, then the ends have theirs, a bound is the later month's, and the gap is nobody's."""
    parts = [*ends(), month(FIRST, "archive"), month(datetime(2026, 11, 1, tzinfo=UTC))]
    places = Places(reversed(parts))

    def of(at_milliseconds: int | None) -> str | None:
        made = run_id("acme", "task", nesting=0, nonce="", at_milliseconds=at_milliseconds)
        found = places.of(made)
        return None if found is None else found.month

    at = to_milliseconds(FIRST)
    assert [of(0), of(at - 1), of(at), of(None)] == ["early", "early", "2026-09", "legacy"]
    october, november = (to_milliseconds(datetime(2026, number, 1, tzinfo=UTC)) for number in (10, 11))
    assert [of(october - 1), of(october), of(november - 1), of(november)] == ["2026-09", None, None, "2026-11"]
    assert places.of(bound(FIRST)) == parts[2]
    assert Places([]).of(bound(FIRST)) is None


def test_what_a_partition_says_of_its_bounds() -> None:
    """Given the ends and a month, then early begins never, legacy has no time, and a month has both."""
    early, legacy = ends()
    assert [(part.start, part.end, part.is_month) for part in (early, legacy, month(FIRST))] == [
        (None, FIRST, False),
        (None, None, False),
        (FIRST, datetime(2026, 10, 1, tzinfo=UTC), True),
    ]


def test_a_month_is_missing_until_five_weeks_from_now_unless_it_is_in_either_place() -> None:
    """Given an archived month, one adrift, and none beyond, then the last two are missing, as soon as they count."""
    parts = [*ends(), month(FIRST, "archive"), month(datetime(2026, 10, 1, tzinfo=UTC), "adrift")]
    december = datetime(2026, 12, 1, tzinfo=UTC)
    parts.append(month(datetime(2026, 11, 1, tzinfo=UTC)))
    assert missing_months(parts, december - timedelta(days=35, seconds=1)) == ["2026-10"]
    assert missing_months(parts, december - timedelta(days=35)) == ["2026-10", "2026-12"]
    assert missing_months([], december) == []


def test_a_month_may_leave_ninety_days_after_its_end() -> None:
    """Given a month, then it is refused until the day that the refusal names."""
    leaves = datetime(2026, 10, 1, tzinfo=UTC) + timedelta(days=90)
    check_age(FIRST, leaves)
    with pytest.raises(InvalidValue, match=r"^month: '2026-09': may be detached from 2026-12-30 on"):
        check_age(FIRST, leaves - timedelta(microseconds=1))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026",
        "2026-13",
        "2026-00",
        "0000-01",
        "2026-9",
        "early",
        "legacy",
        "2026-09-01",
        "9999-12",
        "1999-12",
        "2\u066026-09",
    ],
)
def test_what_is_no_month_is_refused(text: str) -> None:
    """Given a text that names no month, then field, value and rule are named."""
    with pytest.raises(InvalidValue, match=r"^month: .*: must be a month, as 2026-03"):
        parse_month(text)


def test_a_month_is_read_and_followed() -> None:
    """Given a month's text, then it is its first instant; December is followed by January."""
    assert parse_month(" 2026-12 ") == datetime(2026, 12, 1, tzinfo=UTC)
    assert following(parse_month("2999-12")) == datetime(3000, 1, 1, tzinfo=UTC)
    assert following(parse_month("2026-12")) == datetime(2027, 1, 1, tzinfo=UTC)
    assert name_of(parse_month("2026-03")) == "usage_history_2026_03"
