"""What is said to happen next with an increment is what the protocol would do, and names the command that does it."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.sinks.sink import Kind
from billing.sinks.sync import protocol
from billing.sinks.sync.increment import Increment, State
from billing.sinks.sync.telling.next_step import next_step

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
INCREMENT = Increment(
    increment_id=7,
    client_id="acme",
    customer_id="cus_acme",
    event_name="billing_credits",
    kind=Kind.METER_EVENT,
    period_start=NOW - timedelta(days=10),
    period_end=NOW + timedelta(days=20),
    units=5,
    credits_per_unit=1,
    generation=1,
    event_at=NOW - timedelta(hours=1),
    identifier="b1-x",
    planned_at=NOW - timedelta(hours=1),
)
AGO = st.one_of(st.none(), st.integers(-2, 72).map(lambda hours: NOW - timedelta(hours=hours)))


@pytest.mark.parametrize("state", State)
def test_every_state_has_a_next_step_in_words(state: State) -> None:
    """Given what is over, then there is no command; given what a person decides, the increment is in it."""
    step = next_step(dataclasses.replace(INCREMENT, state=state), NOW)
    assert step.what
    assert bool(step.command) == (state not in (State.SENDING, State.CONFIRMED, State.WRITTEN_OFF))
    for_person = state in (State.REJECTED, State.QUARANTINED)
    assert step.command.startswith("billing sync resolve 7 --as ") == for_person


def test_what_was_rejected_is_not_to_be_called_confirmed() -> None:
    step = next_step(dataclasses.replace(INCREMENT, state=State.REJECTED), NOW)
    assert "confirmed" not in step.command


@given(
    state=st.sampled_from([State.PENDING, State.AMBIGUOUS]),
    first=AGO,
    absent=AGO,
    closes=AGO,
    checks=st.integers(0, 3),
)
def test_a_push_is_named_where_the_protocol_sends_and_a_plan_where_it_makes_anew(
    state: State, first: datetime | None, absent: datetime | None, closes: datetime | None, checks: int
) -> None:
    increment = dataclasses.replace(
        INCREMENT,
        state=state,
        first_attempt_at=first if state is State.AMBIGUOUS else None,
        sent_to="test" if state is State.AMBIGUOUS else None,
        absent_since=absent,
        absence_checks=checks,
        closes_at=closes,
    )
    command = next_step(increment, NOW).command
    if protocol.may_send(increment, books="test", now=NOW):
        assert command == "billing sync push"
    elif protocol.needs_reissue(increment, NOW):
        assert command == "billing sync plan"
    else:
        assert command == "billing sync confirm"
