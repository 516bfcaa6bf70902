"""What becomes of an increment that cannot be sent as it is: the same units, elsewhere, under another name (L8)."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from billing.core.settings import StripeLateUsage
from billing.sinks.sink import Kind
from billing.sinks.sync import protocol
from billing.sinks.sync.increment import Increment, State
from billing.sinks.sync.planning import reissuing
from billing.sinks.sync.planning.drafts import identifier
from billing.sinks.sync.planning.periods import KnownPeriod
from billing.sinks.sync.planning.places import Place

START = datetime(2026, 3, 15, 14, 37, 12, tzinfo=UTC)
END = datetime(2026, 4, 15, 14, 37, 12, tzinfo=UTC)
NEXT = datetime(2026, 5, 15, 14, 37, 12, tzinfo=UTC)
GRACE = timedelta(minutes=50)
MARCH = KnownPeriod(start=START, end=END, closes_at=END + GRACE)
APRIL = KnownPeriod(start=END, end=NEXT, closes_at=NEXT + GRACE)
HOUR = START.replace(minute=0, second=0) + timedelta(hours=5)
INCREMENT = Increment(
    increment_id=7,
    client_id="acme",
    customer_id="cus_1",
    event_name="billing_credits",
    kind=Kind.METER_EVENT,
    period_start=START,
    period_end=END,
    units=7,
    credits_per_unit=1,
    generation=1,
    event_at=HOUR + timedelta(minutes=20, seconds=30),
    identifier="b2-first",
    planned_at=HOUR + timedelta(minutes=21),
    closes_at=MARCH.closes_at,
)
DAY = timedelta(days=1)
ABSENT = dataclasses.replace(
    INCREMENT, state=State.AMBIGUOUS, attempts=3, first_attempt_at=HOUR, absent_since=HOUR, absence_checks=2
)


def place(increment: Increment, now: datetime, policy: StripeLateUsage = "carry_forward") -> Place | str:
    """Return where it goes when March and April are known."""
    return reissuing.place_of(increment, first_hour=HOUR, known=[MARCH, APRIL], late_usage=policy, now=now)


def following(increment: Increment, where: Place, event_at: datetime | None = None) -> Increment:
    """Return what becomes of it there."""
    at = event_at or increment.event_at
    return reissuing.next_generation(increment, where, customer_id="cus_1", event_at=at, first_hour=HOUR, now=NEXT)


def test_what_is_absent_is_sent_anew_in_its_own_minute_while_its_period_is_open() -> None:
    """Given an increment of which nothing has arrived, then its next generation is the same but for its name."""
    now = HOUR + 3 * DAY
    assert protocol.needs_reissue(ABSENT, now)
    where = place(ABSENT, now)
    assert isinstance(where, Place)

    found = following(ABSENT, where)

    assert (found.generation, found.state, found.units, found.event_at) == (2, State.PENDING, 7, ABSENT.event_at)
    assert (found.period_start, found.carries_from, found.closes_at) == (START, None, MARCH.closes_at)
    assert found.identifier == identifier(found) != INCREMENT.identifier
    assert (found.first_attempt_at, found.absent_since, found.absence_checks) == (None, None, 0)
    assert "nothing of it has arrived" in found.reason


def test_what_was_not_sent_in_time_is_carried_forward_with_the_hour_that_it_is_of() -> None:
    now = END + 2 * DAY
    assert protocol.needs_reissue(INCREMENT, now)

    found = following(INCREMENT, Place(start=END, end=NEXT, closes_at=APRIL.closes_at), END + DAY)

    assert place(INCREMENT, now) == Place(start=END, end=NEXT, closes_at=APRIL.closes_at)
    assert (found.period_start, found.event_at, found.carries_from) == (END, END + DAY, HOUR)
    assert (found.generation, found.kind, found.reason) == (
        2,
        Kind.METER_EVENT,
        "its period closed before it was sent",
    )


def test_what_carries_earlier_usage_stays_in_its_own_period_while_that_is_open() -> None:
    """Given an increment of March that carries usage of before the subscription, then no policy moves it again."""
    carrying = dataclasses.replace(ABSENT, carries_from=HOUR - 40 * DAY)

    found = reissuing.place_of(
        carrying, first_hour=HOUR - 40 * DAY, known=[MARCH], late_usage="invoice_item", now=HOUR + 3 * DAY
    )

    assert found == Place(start=START, end=END, closes_at=MARCH.closes_at)


def test_late_usage_may_become_an_item_of_the_next_invoice_and_one_stays_one() -> None:
    now = END + 2 * DAY
    where = place(INCREMENT, now, "invoice_item")
    assert where == Place(start=START, end=END, kind=Kind.INVOICE_ITEM)
    assert isinstance(where, Place)

    found = following(INCREMENT, where)

    assert (found.kind, found.closes_at, found.state) == (Kind.INVOICE_ITEM, None, State.PENDING)
    assert place(dataclasses.replace(found, state=State.AMBIGUOUS), now, "carry_forward") == where


def test_late_usage_may_be_written_off_and_says_so() -> None:
    where = place(INCREMENT, END + 2 * DAY, "write_off")
    assert isinstance(where, Place)

    found = following(INCREMENT, where)

    assert (found.state, found.generation) == (State.WRITTEN_OFF, 1)
    assert "billing_stripe_late_usage" in found.reason


def test_what_was_sent_under_as_many_names_as_are_allowed_is_for_a_person() -> None:
    last = dataclasses.replace(ABSENT, generation=protocol.GENERATIONS_MAX)
    where = place(last, HOUR + 3 * DAY)
    assert isinstance(where, Place)

    found = following(last, where)

    assert (found.state, found.generation) == (State.QUARANTINED, protocol.GENERATIONS_MAX)


def test_what_finds_no_period_waits_and_says_why_once() -> None:
    """Given a subscription that has ended, then what was not sent in time stays, pending, with its reason."""
    ended = dataclasses.replace(MARCH, ended=True, closes_at=END - timedelta(minutes=10))
    why = reissuing.place_of(INCREMENT, first_hour=HOUR, known=[ended], late_usage="carry_forward", now=END)
    assert why == "its period has closed, and no later one is open"

    found = reissuing.waiting(INCREMENT, str(why))

    assert found == dataclasses.replace(INCREMENT, reason=f"it cannot be planned anew yet: {why}")
    assert found is not None
    assert reissuing.waiting(found, str(why)) is None


@pytest.mark.parametrize("reason", ["the clerk saw that it is not there"])
def test_what_a_person_sent_back_keeps_their_words(reason: str) -> None:
    back = protocol.resolved_as_absent(dataclasses.replace(ABSENT, state=State.QUARANTINED), reason, HOUR + DAY)
    where = place(back, HOUR + DAY)
    assert isinstance(where, Place)

    assert following(back, where).reason == reason
