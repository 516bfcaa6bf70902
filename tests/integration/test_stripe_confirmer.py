"""Stripe's own summary proves an increment, and one customer's summary keeps no other's waiting (L8, L10)."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
import sqlalchemy
import stripe

from billing.core.errors import Fatal, Unreachable
from billing.core.settings import Settings
from billing.sinks.stripe.sandbox.control import SandboxControl
from billing.sinks.sync.postgres.push_statements import FIND_UNCONFIRMED
from billing.sinks.sync.telling.status import read_status
from tests.integration.syncing import CALENDAR, METER, NOON, Syncing, at_noon, open_session

pytestmark = pytest.mark.integration

EVENTS = "/v1/billing/meter_events"
SUMMARIES = "/v1/billing/meters/*/event_summaries"


@pytest.fixture
def syncing(engine: sqlalchemy.Engine, database: Settings, stripe_sandbox: SandboxControl) -> Syncing:
    return at_noon(engine, database, stripe_sandbox)


def test_given_what_was_sent_when_its_own_minute_shows_its_units_then_it_is_confirmed(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    made = syncing.planned()
    syncing.planned("berry", 9)
    syncing.pusher().push(most=100)
    stripe_sandbox.knobs(summary_lag_seconds=600)
    early = syncing.confirmer().confirm()
    stripe_sandbox.advance(601)
    late = syncing.confirmer().confirm()

    assert (early.checked, early.confirmed) == (2, 0)
    assert (late.checked, late.confirmed) == (2, 2)
    assert syncing.states() == {"confirmed": 2}
    assert syncing.confirmer().confirm().checked == 0
    with syncing.gateway() as gateway:
        start = NOON.replace(day=1, hour=0)
        assert gateway.total(made, METER, start, start + timedelta(days=31)) == 7


def test_given_a_doubt_that_is_too_old_to_send_when_the_summary_shows_it_then_the_doubt_is_over(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    syncing.planned()
    stripe_sandbox.fault("commit_then_close", path=EVENTS)
    syncing.pusher().push(most=100)
    syncing.clock.advance(timedelta(hours=24))
    assert syncing.pusher().push(most=100).sent == 0

    assert syncing.confirmer().confirm().confirmed == 1
    assert syncing.states() == {"confirmed": 1}


def test_given_a_fraction_that_somebody_else_sent_then_only_that_customer_stays_unconfirmed(
    syncing: Syncing, stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient
) -> None:
    """L10: it is looked at first, and noted; the others are confirmed."""
    spoiled = syncing.planned("acme", 7)
    syncing.planned("berry", 9)
    syncing.pusher().push(most=100)
    stripe_sandbox.knobs(decimals=True)
    (at,) = syncing.read("SELECT event_at FROM stripe_increment WHERE client_id = 'acme'")[0]
    payload = {"stripe_customer_id": spoiled, "value": "0.5"}
    stripe_client.v1.billing.meter_events.create(
        {"event_name": METER, "timestamp": int(at.timestamp()), "payload": payload}
    )

    report = syncing.confirmer().confirm()

    assert (report.checked, report.confirmed) == (2, 1)
    (left,) = syncing.read("SELECT client_id, state, reason FROM stripe_increment WHERE confirmed_at IS NULL")
    assert (left.client_id, left.state) == ("acme", "sent")
    assert "7.5: must be whole" in left.reason


def test_given_one_customer_whose_summary_fails_then_the_others_are_confirmed(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    """L10: also when it is the first one of every run."""
    failing = syncing.planned("acme", 7)
    syncing.planned("berry", 9)
    syncing.pusher().push(most=100)
    stripe_sandbox.fault("unavailable", path=SUMMARIES, customer=failing, count=1_000, should_retry=False)

    assert syncing.confirmer().confirm().confirmed == 1
    assert syncing.states() == {"confirmed": 1, "sent": 1}

    with pytest.raises(Unreachable, match="HTTP 503"):
        syncing.confirmer().confirm()


def test_given_a_stripe_that_fails_for_everybody_then_a_few_calls_say_so(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    """L9: a silent Stripe is not asked for every increment."""
    for number in range(8):
        syncing.planned(f"client-{number}", 5)
    syncing.pusher().push(most=100)
    stripe_sandbox.fault("unavailable", path=SUMMARIES, count=8, should_retry=False)

    with pytest.raises(Unreachable, match="HTTP 503"):
        syncing.confirmer().confirm()

    assert len(stripe_sandbox.state()["faults"]) == 1
    assert stripe_sandbox.state()["faults"][0]["count"] == 3
    assert syncing.states() == {"sent": 8}


def test_what_waits_to_be_confirmed_is_found_without_what_is_confirmed(syncing: Syncing) -> None:
    """L9: the question of every quarter of an hour does not grow with the history."""
    syncing.planned()
    question = FIND_UNCONFIRMED.text
    for name, value in {
        ":books": "'stand-in'",
        ":client_id": "NULL",
        ":without": "'{}'",
        ":most": "500",
    }.items():
        question = question.replace(name, value)
    with open_session(syncing.settings) as session:
        session.execute("""
            INSERT INTO stripe_increment (client_id, customer_id, event_name, period_start, period_end, units,
                                          event_at, identifier, state, attempts, sent_to)
            SELECT client_id, customer_id, event_name, period_start, period_end, 1,
                   event_at - n * interval '1 minute', 'b1-' || n, 'confirmed', 1, 'stand-in'
            FROM stripe_increment, generate_series(1, 5000) AS n
        """)
        session.execute("ANALYZE stripe_increment")
        found = session.execute(f"EXPLAIN {question}")
        assert any("stripe_increment_unconfirmed_idx" in line for (line,) in found)


def test_given_more_than_was_sent_when_confirmed_then_the_status_says_so_at_once(
    syncing: Syncing, stripe_client: stripe.StripeClient
) -> None:
    """L8: doubt is visible: it is not said that Stripe does not show what it shows twice."""
    made = syncing.planned()
    syncing.pusher().push(most=100)
    (at,) = syncing.read("SELECT event_at FROM stripe_increment")[0]
    payload = {"stripe_customer_id": made, "value": "7"}
    stripe_client.v1.billing.meter_events.create(
        {"event_name": METER, "timestamp": int(at.timestamp()), "payload": payload}
    )

    assert syncing.confirmer().confirm().confirmed == 0

    assert _concerns(syncing) == ["quarantined: its own sum is 14 at the sink, not its 7 units"]
    syncing.clock.advance(timedelta(days=2))
    syncing.confirmer().confirm()
    assert _concerns(syncing) == ["quarantined: its own sum is 14 at the sink, not its 7 units"]


def test_given_what_stripe_has_dropped_or_nobody_sends_then_the_status_names_it_after_a_day(syncing: Syncing) -> None:
    """A customer that Stripe dropped after its 200, a meter that is not configured any more: neither is forgotten."""
    syncing.add("lost", "cus_nobody")
    syncing.use("lost", 3)
    syncing.planner().plan()
    syncing.pusher().push(most=100)
    syncing.add("late", "cus_late")
    syncing.use("late", 4)
    syncing.planner(rules=dataclasses.replace(CALENDAR, meter="old_meter")).plan()
    with pytest.raises(Fatal, match="'old_meter': is no active meter"):
        syncing.pusher().push(most=100)
    assert _concerns(syncing) == []

    syncing.clock.advance(timedelta(days=1, minutes=1))

    assert _concerns(syncing) == [
        "sent: sent more than a day ago, and Stripe's summaries were not asked since",
        "pending: planned more than a day ago for meter old_meter, and not sent",
    ]
    syncing.confirmer().confirm()
    assert "No such customer" in _concerns(syncing)[0]


def test_given_more_to_look_at_than_is_shown_then_their_number_is(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    stripe_sandbox.knobs(unknown_customer="refuse")
    for number in range(12):
        syncing.add(f"client-{number:02}", f"cus_{number}")
        syncing.use(f"client-{number:02}", 1)
    syncing.planner().plan()
    assert syncing.pusher().push(most=100).rejected == 12

    with syncing.engine.connect() as connection:
        status = read_status(connection, syncing.clock.now(), syncing.settings)

    assert (status.concerned, len(status.concerns)) == (12, 10)


def _concerns(syncing: Syncing) -> list[str]:
    with syncing.engine.connect() as connection:
        found = read_status(connection, syncing.clock.now(), syncing.settings).concerns
    return [f"{concern.state}: {concern.reason}" for concern in found]
