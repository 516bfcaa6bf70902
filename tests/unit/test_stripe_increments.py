"""From usage to increments: no credit twice, none lost, a name that covers the payload, a minute of its own (L8)."""

from __future__ import annotations

import dataclasses
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.schema.stripe import OF_GENERATION, UNITS_MAX, WRITE_ONCE
from billing.sinks.sync.drafts import Unplanned, Written, drafts, identifier
from billing.sinks.sync.periods import AGE_MAX, Period, free_minutes, is_too_old, latest_minute, period_of

HOUR = timedelta(hours=1)
START = datetime(2026, 2, 27, tzinfo=UTC)
INSTANTS = st.datetimes(datetime(2024, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - given above


@st.composite
def rows(draw: st.DrawFn) -> Unplanned:
    """Draw a row of usage with something unplanned."""
    planned = draw(st.integers(0, 10))
    more = draw(st.one_of(st.integers(1, 50), st.integers(UNITS_MAX - 5, 3 * UNITS_MAX)))
    client_id = draw(st.sampled_from(["a", "b"]))
    return Unplanned(
        client_id=client_id,
        customer_id=f"cus_{client_id}",
        sku=draw(st.sampled_from(["page", "search"])),
        hour=START + draw(st.integers(0, 100)) * HOUR,
        credits=planned + more,
        planned=planned,
    )


@given(st.lists(rows(), max_size=12, unique_by=lambda row: (row.client_id, row.sku, row.hour)))
def test_every_credit_is_in_exactly_one_increment(found: list[Unplanned]) -> None:
    """Given any rows, then parts join without gap or overlap, in one client and period, none above the bound."""
    made = drafts(found)

    seen: dict[tuple[str, str, datetime], int] = {(row.client_id, row.sku, row.hour): row.planned for row in found}
    for draft in made:
        assert 0 < draft.units <= UNITS_MAX
        for part in draft.parts:
            assert period_of(part.hour) == draft.period
            assert part.units > 0
            assert seen[draft.client_id, part.sku, part.hour] == part.credits_from
            seen[draft.client_id, part.sku, part.hour] = part.credits_to
    assert seen == {(row.client_id, row.sku, row.hour): row.credits for row in found}
    wanted = Counter[tuple[str, Period]]()
    for row in found:
        wanted[row.client_id, period_of(row.hour)] += row.credits - row.planned
    fewest = {key: -(-units // UNITS_MAX) for key, units in wanted.items()}
    assert Counter((draft.client_id, draft.period) for draft in made) == fewest


@st.composite
def corrected_rows(draw: st.DrawFn) -> Unplanned:
    """Draw a row of which corrections returned something, or not, which increments carry in part."""
    used, returned = draw(st.integers(0, 60)), draw(st.integers(0, 60))
    used_planned, returned_planned = draw(st.integers(0, used)), draw(st.integers(0, returned))
    client_id = draw(st.sampled_from(["a", "b"]))
    return Unplanned(
        client_id=client_id,
        customer_id=f"cus_{client_id}",
        sku=draw(st.sampled_from(["page", "search"])),
        hour=START + draw(st.integers(0, 100)) * HOUR,
        credits=used - returned,
        planned=used_planned - returned_planned,
        returned=returned,
        returned_planned=returned_planned,
    )


@given(st.lists(corrected_rows(), max_size=12, unique_by=lambda row: (row.client_id, row.sku, row.hour)))
def test_what_was_returned_makes_increments_smaller_and_is_carried_until_one_is_above_0(found: list[Unplanned]) -> None:
    """L8: whole rows are planned, or wait; what waits at the end of a client's rows is not above 0."""
    made = drafts(found)

    used = {(row.client_id, row.sku, row.hour): row.planned + row.returned_planned for row in found}
    returned = {(row.client_id, row.sku, row.hour): -row.returned_planned for row in found}
    for draft in made:
        assert 0 < draft.units <= UNITS_MAX
        earlier = [part for part in draft.parts if part.hour < draft.period.start]
        assert sum(part.units for part in earlier) <= 0
        assert draft.carries_from == min((part.hour for part in earlier), default=None)
        for part in draft.parts:
            assert part.hour < draft.period.end
            totals = used if part.units > 0 else returned
            assert totals[draft.client_id, part.sku, part.hour] == part.credits_from
            totals[draft.client_id, part.sku, part.hour] = part.credits_to
    waiting: Counter[str] = Counter()
    for row in found:
        key = row.client_id, row.sku, row.hour
        planned = (used[key], -returned[key])
        if planned != (row.credits + row.returned, row.returned):
            assert planned == (row.planned + row.returned_planned, row.returned_planned)
            waiting[row.client_id] += row.units
    assert all(units <= 0 for units in waiting.values())


WRITTEN = Written(
    client_id="acme",
    customer_id="cus_1",
    event_name="billing_credits",
    period=Period(start=START, end=START + 30 * HOUR),
    units=7,
    generation=1,
    event_at=START + timedelta(seconds=30),
    planned_at=START + timedelta(seconds=40),
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "client_id": st.text(min_size=1, max_size=5),
            "customer_id": st.text(min_size=1, max_size=5),
            "event_name": st.text(min_size=1, max_size=5),
            "period": st.builds(Period, start=INSTANTS, end=INSTANTS),
            "units": st.integers(1, UNITS_MAX),
            "generation": st.integers(1, 9),
            "event_at": INSTANTS,
            "planned_at": INSTANTS,
        },
    )
)
def test_another_payload_has_another_identifier(changes: dict[str, object]) -> None:
    """Given any change of what is sent, then Stripe cannot take it for the old event; the same has the same name."""
    changed = dataclasses.replace(WRITTEN, **changes)  # type: ignore[arg-type]

    assert (identifier(changed) == identifier(WRITTEN)) == (changed == WRITTEN)
    assert len(identifier(changed)) == 55


def test_the_identifier_covers_every_column_that_is_written_once() -> None:
    """Given the columns that the database protects, then each is covered, or is a name of the increment itself."""
    covered = {field.name for field in dataclasses.fields(Written)} - {"period"} | {"period_start", "period_end"}

    assert covered | {"credits_per_unit", "kind"} == {*WRITE_ONCE, *OF_GENERATION} - {"increment_id", "identifier"}


@pytest.mark.parametrize(
    ("hour", "start", "end"),
    [
        ("2026-02-28T23:00", "2026-02-01", "2026-03-01"),
        ("2024-02-29T00:00", "2024-02-01", "2024-03-01"),
        ("2026-12-31T23:00", "2026-12-01", "2027-01-01"),
        ("2027-01-01T00:00", "2027-01-01", "2027-02-01"),
    ],
)
def test_the_billing_period_is_the_month_in_utc(hour: str, start: str, end: str) -> None:
    instants = [datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (hour, start, end)]

    assert period_of(instants[0]) == Period(start=instants[1], end=instants[2])


@given(INSTANTS, INSTANTS)
def test_an_event_lies_in_its_period_in_the_past_and_off_the_minutes_ends(hour: datetime, now: datetime) -> None:
    period = period_of(hour.replace(minute=0, second=0, microsecond=0))

    found = latest_minute(period, now)

    if found is None:
        assert now < period.start + timedelta(seconds=30)
    else:
        assert period.start <= found < period.end
        assert found <= now
        assert (found.second, found.microsecond) == (30, 0)
        assert found + timedelta(minutes=1) > min(now, period.end - timedelta(seconds=30))


@given(st.sets(st.integers(0, 12)), st.integers(0, 12), st.integers(1, 6))
def test_minutes_are_free_the_latest_first_and_never_shared(taken: set[int], length: int, count: int) -> None:
    minute = timedelta(minutes=1)
    latest = START + timedelta(seconds=30)

    found = free_minutes(latest, latest - length * minute, {latest - n * minute for n in taken}, count)

    free = [n for n in range(length + 1) if n not in taken]
    assert found == [latest - n * minute for n in free[:count]]


def test_a_period_is_too_old_when_its_last_minute_is() -> None:
    """Stripe's bound is 35 days; ours is a day less, which an increment may spend waiting."""
    period = Period(start=START, end=START + 24 * HOUR)
    last = period.end - timedelta(seconds=30)

    assert not is_too_old(period, last + AGE_MAX)
    assert is_too_old(period, last + AGE_MAX + timedelta(seconds=1))
    assert timedelta(days=35) - AGE_MAX == timedelta(days=1)
