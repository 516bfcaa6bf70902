"""From usage to increments: no credit twice, none lost, whole units only, a name that covers the payload (L8)."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from billing.schema.stripe import OF_GENERATION, UNITS_MAX, WRITE_ONCE
from billing.sinks.sink import Kind
from billing.sinks.sync.increment import Increment, State
from billing.sinks.sync.planning.drafts import COVERED, Draft, Meters, Unplanned, drafted, identifier, increment_of
from billing.sinks.sync.planning.places import Place

HOUR = timedelta(hours=1)
START = datetime(2026, 2, 27, tzinfo=UTC)
INSTANTS = st.datetimes(datetime(2024, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - given above
DEFAULT = "credits"
#: Three days in places of their own, then hours that wait.
DAYS = [Place(start=START + n * 24 * HOUR, end=START + (n + 1) * 24 * HOUR) for n in range(3)]
WAITS = "no billing period is known"
Key = tuple[str, str, datetime]


def placing(_customer_id: str, _event_name: str, hour: datetime) -> Place | str:
    """Place an hour by its day."""
    day = (hour - START) // (24 * HOUR)
    return DAYS[day] if day < len(DAYS) else WAITS


def plan(rows: Sequence[Unplanned], meters: Meters) -> tuple[Draft, ...]:
    """Return the drafts of rows."""
    return drafted(rows, meters=meters, default=DEFAULT, placing=placing).drafts


@st.composite
def unplanned(draw: st.DrawFn) -> Unplanned:
    """Draw a row of which corrections returned something, or not, which increments carry in part."""
    large = st.integers(UNITS_MAX - 5, 3 * UNITS_MAX)
    used, returned = draw(st.one_of(st.integers(0, 60), large)), draw(st.integers(0, 60))
    used_planned, returned_planned = draw(st.integers(0, min(used, 60))), draw(st.integers(0, returned))
    client_id = draw(st.sampled_from(["a", "b"]))
    return Unplanned(
        client_id=client_id,
        customer_id=f"cus_{client_id}",
        sku=draw(st.sampled_from(["page", "search"])),
        hour=START + draw(st.integers(0, 80)) * HOUR,
        credits=used - returned,
        planned=used_planned - returned_planned,
        returned=returned,
        returned_planned=returned_planned,
    )


METERS = st.builds(
    Meters,
    of_sku=st.sampled_from([{}, {"search": "searches"}]),
    credits_per_unit=st.dictionaries(st.sampled_from([DEFAULT, "searches"]), st.integers(2, 50)),
)
ROWS = st.lists(unplanned(), max_size=12, unique_by=lambda row: (row.client_id, row.sku, row.hour))


def advanced(rows: Sequence[Unplanned], drafts: Sequence[Draft]) -> list[Unplanned]:
    """Return rows as they are once drafts are written, having seen that parts join without gap or overlap."""
    used = {(row.client_id, row.sku, row.hour): row.planned + row.returned_planned for row in rows}
    returned = {(row.client_id, row.sku, row.hour): -row.returned_planned for row in rows}
    for draft in drafts:
        for part in draft.parts:
            totals = used if part.credits > 0 else returned
            assert totals[draft.client_id, part.sku, part.hour] == part.credits_from
            totals[draft.client_id, part.sku, part.hour] = part.credits_to
    after = []
    for row in rows:
        key = row.client_id, row.sku, row.hour
        assert used[key] <= row.credits + row.returned
        assert -returned[key] <= row.returned
        after.append(dataclasses.replace(row, planned=used[key] + returned[key], returned_planned=-returned[key]))
    return after


@given(ROWS, METERS)
def test_every_credit_is_in_one_increment_of_whole_units_or_stays_and_less_than_a_unit_does(
    rows: list[Unplanned], meters: Meters
) -> None:
    """L8: parts tile the rows; an increment carries exactly its units; no meter keeps a whole unit back."""
    made = plan(rows, meters)

    left: Counter[tuple[str, str]] = Counter()
    for row in advanced(rows, made):
        if isinstance(placing("", "", row.hour), Place):
            left[row.client_id, meters.of_sku.get(row.sku, DEFAULT)] += row.left
        else:
            assert row in rows
    for (_, event_name), credits_ in left.items():
        assert credits_ < meters.credits_per_unit.get(event_name, 1)
    for draft in made:
        assert 0 < draft.units <= UNITS_MAX
        assert draft.credits_per_unit == meters.credits_per_unit.get(draft.event_name, 1)
        assert sum(part.credits for part in draft.parts) == draft.units * draft.credits_per_unit
        assert {meters.of_sku.get(part.sku, DEFAULT) for part in draft.parts} == {draft.event_name}


@given(ROWS, METERS)
def test_no_usage_is_carried_back_and_only_what_a_period_left_is_carried_on(
    rows: list[Unplanned], meters: Meters
) -> None:
    """What earlier periods leave is less than a unit, or below 0; an increment says from when on it carries."""
    for draft in plan(rows, meters):
        earlier = [part for part in draft.parts if part.hour < draft.place.start]
        assert all(part.hour < draft.place.end for part in draft.parts)
        assert draft.carries_from == min((part.hour for part in earlier), default=None)
        assert sum(part.credits for part in earlier) < draft.credits_per_unit


@given(ROWS, METERS)
def test_one_place_of_one_meter_has_no_more_increments_than_it_needs(rows: list[Unplanned], meters: Meters) -> None:
    """Given any rows, then a client has one increment per meter and period, unless one event cannot hold the units."""
    units: defaultdict[tuple[str, str, Place], list[int]] = defaultdict(list)
    for draft in plan(rows, meters):
        units[draft.client_id, draft.event_name, draft.place].append(draft.units)

    for found in units.values():
        assert found[:-1] == [UNITS_MAX] * (len(found) - 1)


def runs_of(hours: int, least: int) -> st.SearchStrategy[list[list[tuple[int, int]]]]:
    """Draw several runs of (hour, credits)."""
    return st.lists(st.lists(st.tuples(st.integers(0, hours), st.integers(least, 60)), max_size=4), max_size=8)


@given(st.one_of(runs_of(71, 0), runs_of(23, -40)), st.integers(1, 50))
def test_for_ever_the_units_are_the_floor_of_the_highest_sum_of_credits(
    runs: list[list[tuple[int, int]]], each: int
) -> None:
    """Given usage of any periods, or with corrections of one, over many plans, then rounding never adds up."""
    meters = Meters(credits_per_unit={DEFAULT: each})
    rows: dict[datetime, Unplanned] = {}
    total, highest, units = 0, 0, 0
    for run in runs:
        for number, credits_ in run:
            hour = START + number * HOUR
            row = rows.get(hour) or Unplanned(
                client_id="a", customer_id="cus_a", sku="page", hour=hour, credits=0, planned=0
            )
            returned = row.returned - min(0, credits_)
            rows[hour] = dataclasses.replace(row, credits=row.credits + credits_, returned=returned)
            total += credits_
        made = plan(list(rows.values()), meters)
        rows = {row.hour: row for row in advanced(list(rows.values()), made)}
        units += sum(draft.units for draft in made)
        highest = max(highest, total // each)
        assert units == highest


def test_what_is_returned_is_taken_first_and_rows_are_taken_in_order_of_time() -> None:
    """Given 10 credits a unit, then the oldest credits fill the units, and the youngest row keeps the rest."""
    first = Unplanned(client_id="a", customer_id="c", sku="page", hour=START, credits=16, planned=0, returned=4)
    second = dataclasses.replace(first, hour=START + HOUR, credits=9, returned=0)

    (made,) = plan([second, first], Meters(credits_per_unit={DEFAULT: 10}))

    found = [(part.hour, part.credits_from, part.credits_to) for part in made.parts]
    assert found == [(START, 0, -4), (START, 0, 20), (START + HOUR, 0, 4)]
    assert made.units == 2


def test_clients_that_wait_say_why() -> None:
    row = Unplanned(client_id="a", customer_id="cus_a", sku="page", hour=START + 80 * HOUR, credits=1, planned=0)

    found = drafted([row], meters=Meters(), default=DEFAULT, placing=placing)

    assert (found.drafts, set(found.waiting)) == ((), {("a", WAITS)})


def test_what_is_written_off_is_an_increment_that_is_never_sent() -> None:
    late = dataclasses.replace(DAYS[0], written_off=True, reason="too late")
    row = Unplanned(client_id="a", customer_id="cus_a", sku="page", hour=START, credits=5, planned=0)
    (draft,) = drafted([row], meters=Meters(), default=DEFAULT, placing=lambda *_: late).drafts

    made = increment_of(draft, event_at=START, planned_at=START)

    assert (made.state, made.reason, made.units) == (State.WRITTEN_OFF, "too late", 5)


INCREMENT = Increment(
    increment_id=0,
    client_id="acme",
    customer_id="cus_1",
    event_name="billing_credits",
    kind=Kind.METER_EVENT,
    period_start=START,
    period_end=START + 30 * HOUR,
    units=7,
    credits_per_unit=1,
    generation=1,
    event_at=START + timedelta(seconds=30),
    identifier="",
    planned_at=START + timedelta(seconds=40),
)
CHANGES = {
    "client_id": st.text(min_size=1, max_size=5),
    "customer_id": st.text(min_size=1, max_size=5),
    "event_name": st.text(min_size=1, max_size=5),
    "kind": st.sampled_from(Kind),
    "period_start": INSTANTS,
    "period_end": INSTANTS,
    "units": st.integers(1, UNITS_MAX),
    "credits_per_unit": st.integers(1, 1_000),
    "generation": st.integers(1, 9),
    "event_at": INSTANTS,
    "planned_at": INSTANTS,
}


@given(st.fixed_dictionaries({}, optional=CHANGES))
def test_another_payload_has_another_identifier(changes: dict[str, object]) -> None:
    """Given any change of what is sent, then Stripe cannot take it for the old event; the same has the same name."""
    changed = dataclasses.replace(INCREMENT, **changes)  # type: ignore[arg-type]

    assert (identifier(changed) == identifier(INCREMENT)) == (changed == INCREMENT)
    assert len(identifier(changed)) == 55


def test_the_identifier_covers_every_column_that_is_written_once() -> None:
    """Given the columns that the database protects, then each is covered, or is a name of the increment itself."""
    assert set(COVERED) == set(CHANGES) == {*WRITE_ONCE, *OF_GENERATION} - {"increment_id", "identifier"}


def test_the_identifier_is_computed_as_its_prefix_says() -> None:
    """Given one payload, then its name is what it was: another way of computing it needs another prefix."""
    assert identifier(INCREMENT) == "b2-qxhbcgplfb22bux7rsnpqpjigladnsll5z55u2nqlxydkmj5hr2q"
