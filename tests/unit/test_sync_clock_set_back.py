"""A first attempt that is on record as of the future: its clock was set back; the sink may forget it meanwhile (L8)."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from billing.sinks.sink import Kind
from billing.sinks.sync import looks, protocol
from billing.sinks.sync.increment import Increment, State

NOW = datetime(2026, 3, 20, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DOUBTED = Increment(
    increment_id=1,
    client_id="acme",
    customer_id="cus_acme",
    event_name="credits",
    kind=Kind.METER_EVENT,
    period_start=NOW - 48 * HOUR,
    period_end=NOW + 480 * HOUR,
    units=5,
    credits_per_unit=1,
    generation=1,
    event_at=NOW - HOUR,
    identifier="b2-1",
    planned_at=NOW - HOUR,
    state=State.AMBIGUOUS,
    attempts=1,
    first_attempt_at=NOW + 5 * HOUR,
    last_attempt_at=NOW + 5 * HOUR,
    sent_to="test",
)


@pytest.mark.parametrize("hours", [0, 4.6, 20, 24.5, 27.9, 100])
def test_given_a_clock_that_was_hours_ahead_then_after_a_look_it_is_never_sent_again(hours: float) -> None:
    after = (
        looks.checked(DOUBTED, 0, NOW, payload=DOUBTED.payload),
        looks.check_refused(DOUBTED, "no such customer", NOW, payload=DOUBTED.payload),
        looks.unanswered(DOUBTED, NOW),
    )

    for seen in after:
        assert seen is not None
        assert not protocol.may_send(seen, books="test", now=NOW + hours * HOUR)


def test_given_clocks_that_differ_by_minutes_then_a_look_changes_nothing_of_it() -> None:
    early = dataclasses.replace(DOUBTED, first_attempt_at=NOW + timedelta(minutes=29))

    seen = looks.checked(early, 0, NOW, payload=early.payload)

    assert seen is not None
    assert seen.first_attempt_at == early.first_attempt_at
    assert protocol.may_send(seen, books="test", now=NOW)
