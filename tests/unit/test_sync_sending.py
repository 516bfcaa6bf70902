"""When an increment may be sent, at each of its bounds: what the database finds is a hint, this decides (L8)."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from billing.sinks.sink import Kind
from billing.sinks.sync import protocol
from billing.sinks.sync.increment import Increment, State

NOW = datetime(2026, 3, 20, 12, 0, tzinfo=UTC)
MOMENT = timedelta(microseconds=1)
DOUBTED = Increment(
    increment_id=1,
    client_id="acme",
    customer_id="cus_acme",
    event_name="credits",
    kind=Kind.METER_EVENT,
    period_start=NOW - timedelta(days=2),
    period_end=NOW + timedelta(days=20),
    units=5,
    credits_per_unit=1,
    generation=1,
    event_at=NOW - timedelta(hours=1),
    identifier="b2-1",
    planned_at=NOW - timedelta(hours=1),
    closes_at=NOW + timedelta(days=20),
    state=State.AMBIGUOUS,
    attempts=1,
    first_attempt_at=NOW - timedelta(hours=1),
    last_attempt_at=NOW - timedelta(hours=1),
    sent_to="test",
)


@pytest.mark.parametrize(
    ("changes", "may"),
    [
        ({}, True),
        ({"sent_to": "live"}, False),
        ({"sent_to": None}, True),
        ({"state": State.SENT}, False),
        ({"state": State.SENDING}, False),
        ({"state": State.PENDING}, True),
        ({"event_at": NOW}, True),
        ({"event_at": NOW + MOMENT}, False),
        ({"closes_at": NOW + MOMENT}, True),
        ({"closes_at": NOW}, False),
        ({"event_at": NOW - protocol.EVENT_AGE_MAX + MOMENT}, True),
        ({"event_at": NOW - protocol.EVENT_AGE_MAX}, False),
        ({"first_attempt_at": NOW - timedelta(hours=22, minutes=30) + MOMENT}, True),
        ({"first_attempt_at": NOW - timedelta(hours=22, minutes=30)}, False),
        ({"first_attempt_at": None}, True),
    ],
)
def test_it_may_be_sent_within_its_bounds_and_to_the_books_that_it_was_sent_to(
    changes: dict[str, object],
    may: bool,  # noqa: FBT001
) -> None:
    increment = dataclasses.replace(DOUBTED, **changes)  # type: ignore[arg-type]
    assert protocol.may_send(increment, books="test", now=NOW) is may
    claim = protocol.claimed(increment, books="test", now=NOW)
    assert (claim is not None) is may
    if claim is not None:
        assert (claim.state, claim.attempts, claim.sent_to, claim.last_attempt_at) == (State.SENDING, 2, "test", NOW)
        assert claim.first_attempt_at == (increment.first_attempt_at or NOW)


def test_a_pusher_is_lost_once_its_lease_is_over_and_may_have_called() -> None:
    """What it sent may have arrived: it is in doubt, and never new."""
    claim = protocol.claimed(DOUBTED, books="test", now=NOW)
    assert claim is not None
    assert protocol.lost(claim, NOW + protocol.LEASE) is None
    lost = protocol.lost(claim, NOW + protocol.LEASE + MOMENT)
    assert lost is not None
    assert (lost.state, lost.first_attempt_at, lost.sent_to) == (State.AMBIGUOUS, DOUBTED.first_attempt_at, "test")
