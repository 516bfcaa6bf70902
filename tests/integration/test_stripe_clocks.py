"""A clock that was ahead, or was set back, doubles nothing at Stripe, loses nothing, and holds nobody up (L8, L10)."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy

from billing.core.settings import Settings
from billing.sinks.stripe.sandbox.control import SandboxControl
from billing.sinks.sync.protocol import LEASE
from tests.integration.syncing import METER, NOON, Syncing, at_noon

pytestmark = pytest.mark.integration


@pytest.fixture
def syncing(engine: sqlalchemy.Engine, database: Settings, stripe_sandbox: SandboxControl) -> Syncing:
    return at_noon(engine, database, stripe_sandbox)


def test_given_a_clock_set_back_after_a_doubt_then_it_is_not_sent_again(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    """L8: by the clock an hour has hardly passed; by Stripe's, the identifier may be forgotten."""
    made = syncing.customer("acme")
    syncing.use("acme", 7)
    syncing.clock.advance(timedelta(days=2))
    stripe_sandbox.advance(2 * 86_400)
    syncing.planner().plan()
    stripe_sandbox.fault("commit_then_close", path="/v1/billing/meter_events")
    assert syncing.pusher().push(most=100).ambiguous == 1
    syncing.clock.advance(timedelta(days=-1))
    stripe_sandbox.advance(25 * 3_600)

    report = syncing.pusher().push(most=100)

    assert (report.sent, report.ambiguous) == (0, 0)
    assert stripe_sandbox.total(made, METER) == 7
    assert syncing.states() == {"ambiguous": 1}
    assert syncing.confirmer().confirm().confirmed == 1


def test_given_a_pusher_that_died_before_its_clock_was_set_back_then_its_customer_does_not_wait_for_its_lease(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    """L10: a lease that ends in two days was never given by this clock."""
    made = syncing.planned()
    taken = "UPDATE stripe_increment SET state = 'sending', attempts = 1, sent_to = 'stand-in', lease_until = :until, "
    with syncing.engine.begin() as connection:
        connection.execute(
            sqlalchemy.text(taken + "first_attempt_at = :at, last_attempt_at = :at"),
            {"at": NOON + timedelta(days=2), "until": NOON + timedelta(days=2) + LEASE},
        )
        connection.execute(
            sqlalchemy.text("INSERT INTO stripe_attempt SELECT increment_id, 1, '1' FROM stripe_increment")
        )
    syncing.use("acme", 5)
    syncing.clock.advance(timedelta(minutes=1))
    stripe_sandbox.advance(60)
    syncing.planner().plan()

    report = syncing.pusher().push(most=100)

    assert (report.lost, report.sent) == (1, 1)
    assert stripe_sandbox.total(made, METER) == 5


def test_given_a_planner_whose_clock_is_ahead_then_its_increment_waits_for_its_minute(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    """Stripe would refuse it for good: an event of the future is none that is wrong for ever."""
    made = syncing.customer("acme")
    syncing.use("acme", 7)
    syncing.clock.advance(timedelta(minutes=10))
    syncing.planner().plan()
    syncing.clock.advance(timedelta(minutes=-10))

    early = syncing.pusher().push(most=100)
    assert (early.sent, early.rejected) == (0, 0)
    syncing.clock.advance(timedelta(minutes=10))
    stripe_sandbox.advance(600)

    assert syncing.pusher().push(most=100).sent == 1
    assert stripe_sandbox.total(made, METER) == 7
