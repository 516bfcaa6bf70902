"""What a sink says after it had answered: what it dropped, and what it counted twice (L8)."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from billing.sinks.sink import Answer, ErrorReport, Kind, Reply
from billing.sinks.sync import afterwards, looks, protocol
from billing.sinks.sync.increment import Attempt, Increment, State
from billing.sinks.sync.looks import ABSENT_FOR
from billing.sinks.sync.protocol import LEASE

NOON = datetime(2026, 3, 20, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
SENT = Increment(
    increment_id=1,
    client_id="acme",
    customer_id="cus_acme",
    event_name="pages",
    kind=Kind.METER_EVENT,
    period_start=NOON.replace(day=1, hour=0),
    period_end=NOON.replace(month=4, day=1, hour=0),
    units=7,
    credits_per_unit=1,
    generation=1,
    event_at=NOON - timedelta(seconds=30),
    identifier="b1-a",
    planned_at=NOON,
    state=State.SENT,
    attempts=2,
    first_attempt_at=NOON,
    last_attempt_at=NOON,
    sent_to="test",
)
REPORT = ErrorReport(
    event_id="evt_1:timestamp_in_future",
    event_name="pages",
    code="timestamp_in_future",
    count=1,
    window_start=NOON,
    window_end=NOON + timedelta(seconds=10),
    samples=("b1-a#2",),
)
TWICE = dataclasses.replace(SENT, state=State.QUARANTINED, generation=2)


@pytest.mark.parametrize("state", [State.SENDING, State.SENT, State.AMBIGUOUS, State.QUARANTINED])
def test_given_a_report_of_the_latest_call_then_it_was_dropped(state: State) -> None:
    found = afterwards.named(dataclasses.replace(SENT, state=state, lease_until=NOON), REPORT)

    assert found is not None
    assert (found.state, found.lease_until) == (State.REJECTED, None)
    assert "timestamp_in_future" in found.reason


@pytest.mark.parametrize("state", [State.PENDING, State.CONFIRMED, State.REJECTED, State.WRITTEN_OFF])
def test_given_a_report_of_what_is_settled_then_it_says_nothing(state: State) -> None:
    """What the sums have shown stays shown; what is dropped stays dropped."""
    assert afterwards.named(dataclasses.replace(SENT, state=state), REPORT) is None


def test_given_a_report_of_another_generation_then_it_says_nothing() -> None:
    assert afterwards.named(dataclasses.replace(SENT, identifier="b1-b"), REPORT) is None


def test_given_a_report_of_an_earlier_call_then_the_sums_are_to_tell() -> None:
    """The later call may be counted: resent as dropped, it would be counted twice."""
    report = dataclasses.replace(REPORT, samples=("b1-a#1",))

    found = afterwards.named(SENT, report)

    assert found is not None
    assert found.state is State.QUARANTINED
    assert looks.may_check(found, books="test")
    assert afterwards.named(dataclasses.replace(SENT, state=State.SENDING), report) is None
    assert afterwards.named(dataclasses.replace(SENT, state=State.AMBIGUOUS), report) is None


@pytest.mark.parametrize(
    ("changes", "named", "expected"),
    [
        ({}, (1,), False),
        ({"count": 2}, (1,), True),
        ({}, (), True),
        ({"event_name": ""}, (), True),
        ({"event_name": "searches"}, (), False),
        ({"window_start": NOON + HOUR, "window_end": NOON + HOUR}, (), False),
        ({"window_start": NOON - HOUR, "window_end": NOON - HOUR}, (), False),
    ],
)
def test_what_a_report_may_be_about(changes: dict[str, object], named: tuple[int, ...], *, expected: bool) -> None:
    """Given a report that names fewer calls than it is about, then a call near its window may be one of them."""
    report = dataclasses.replace(REPORT, **changes)  # type: ignore[arg-type]
    attempt = Attempt(
        increment_id=1, attempt=1, idempotency_key="b1-a#1", started_at=NOON, finished_at=NOON + timedelta(seconds=1)
    )

    assert afterwards.doubts(report, named, SENT, [attempt]) is expected
    assert not afterwards.doubts(report, named, SENT, [])


def test_given_an_attempt_without_an_answer_then_it_may_have_lasted_its_lease() -> None:
    attempt = Attempt(increment_id=1, attempt=1, idempotency_key="b1-a#1", started_at=NOON)
    late = NOON + LEASE + afterwards.REPORT_MARGIN

    assert afterwards.is_near(attempt, dataclasses.replace(REPORT, window_start=late, window_end=late))
    later = late + timedelta(seconds=1)
    assert not afterwards.is_near(attempt, dataclasses.replace(REPORT, window_start=later, window_end=later))


@pytest.mark.parametrize("state", [State.SENT, State.AMBIGUOUS])
def test_given_a_report_that_may_be_about_it_then_what_is_absent_is_for_a_person(state: State) -> None:
    """The next generation would be dropped as this one was; without a report it is made."""
    since = NOON + HOUR
    seen = dataclasses.replace(SENT, state=state, absent_since=since, absence_checks=1)

    early = looks.checked(seen, 0, since + ABSENT_FOR / 2, payload=SENT.payload, doubted_by="archived_meter")
    doubted = looks.checked(seen, 0, since + ABSENT_FOR, payload=SENT.payload, doubted_by="archived_meter")
    plain = looks.checked(seen, 0, since + ABSENT_FOR, payload=SENT.payload)

    assert early is not None
    assert early.state is state
    assert doubted is not None
    assert doubted.state is State.QUARANTINED
    assert "archived_meter" in doubted.reason
    assert plain is not None
    assert plain.state is State.AMBIGUOUS
    assert protocol.needs_reissue(plain, since + ABSENT_FOR)
    assert not protocol.needs_reissue(doubted, since + ABSENT_FOR)


def test_given_a_look_at_another_generation_then_it_says_nothing() -> None:
    other = dataclasses.replace(SENT, identifier="b1-b", generation=2)

    assert looks.checked(other, 7, NOON, payload=SENT.payload) is None
    assert looks.checked(SENT, 7, NOON, payload=SENT.payload) is not None


def test_given_a_second_generation_that_is_counted_as_well_then_it_is_taken_back_once() -> None:
    claim = afterwards.withdrawing(TWICE, 14, NOON + HOUR)

    assert claim is not None
    assert (claim.state, claim.idempotency_key) == (State.QUARANTINED, "b1-a#3")
    done = afterwards.withdrawn(claim, 3, Reply(answer=Answer.TAKEN), NOON + HOUR)
    assert done is not None
    assert done.withdrawn_at == NOON + HOUR
    assert afterwards.withdrawing(done, 14, NOON + 2 * HOUR) is None
    confirmed = looks.checked(done, 7, NOON + 2 * HOUR, payload=done.payload)
    assert confirmed is not None
    assert confirmed.state is State.CONFIRMED


@pytest.mark.parametrize(
    ("changes", "shown", "at"),
    [
        ({"generation": 1}, 14, NOON),
        ({}, 21, NOON),
        ({"kind": Kind.INVOICE_ITEM}, 14, NOON),
        ({"state": State.SENT}, 14, NOON),
        ({"first_attempt_at": None}, 14, NOON),
        ({}, 14, NOON + timedelta(hours=23)),
        ({}, 14, NOON - HOUR),
    ],
)
def test_what_is_not_taken_back(changes: dict[str, object], shown: int, at: datetime) -> None:
    """One generation alone, another sum, an item, what is no doubt, and what Stripe takes back no more."""
    assert afterwards.withdrawing(dataclasses.replace(TWICE, **changes), shown, at) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", [Answer.UNKNOWN, Answer.BUSY, Answer.UNREACHED, Answer.FORBIDDEN])
def test_given_no_answer_that_says_it_then_it_is_asked_for_again(answer: Answer) -> None:
    claim = afterwards.withdrawing(TWICE, 14, NOON)
    assert claim is not None

    assert afterwards.withdrawn(claim, claim.attempts, Reply(answer=answer), NOON) is None
    assert afterwards.withdrawing(claim, 14, NOON + HOUR) is not None


def test_given_a_refusal_then_a_person_is_told_why() -> None:
    claim = afterwards.withdrawing(TWICE, 14, NOON)
    assert claim is not None

    done = afterwards.withdrawn(claim, claim.attempts, Reply(answer=Answer.REFUSED, reason="HTTP 400: too late"), NOON)

    assert done is not None
    assert "too late" in done.reason
    assert afterwards.withdrawing(done, 14, NOON + HOUR) is None
