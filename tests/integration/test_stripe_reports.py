"""What Stripe took and dropped later is known by its reports: once each, whoever reads them and however often (L8)."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy
import stripe

from billing.core.settings import Settings
from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.integration.syncing import METER, NOON, Syncing, at_noon
from tests.sessions import wait_for_the_dead

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
EVENTS = "/v1/billing/meter_events"
LATER = timedelta(minutes=2)


@pytest.fixture
def syncing(engine: sqlalchemy.Engine, database: Settings, stripe_sandbox: SandboxControl) -> Syncing:
    return at_noon(engine, database, stripe_sandbox)


def pass_time(syncing: Syncing, stripe_sandbox: SandboxControl, delta: timedelta = LATER) -> None:
    """Let time pass, for us and for Stripe."""
    syncing.clock.advance(delta)
    stripe_sandbox.advance(int(delta.total_seconds()))


def dropped(syncing: Syncing, stripe_sandbox: SandboxControl, count: int) -> None:
    """Send one increment for each of some customers that Stripe does not know, and one that it does."""
    for number in range(count):
        syncing.add(f"client-{number}", f"cus_nobody{number}")
        syncing.use(f"client-{number}", 3)
    syncing.planned()
    assert syncing.pusher().push(most=100).sent == count + 1
    pass_time(syncing, stripe_sandbox)


def test_given_what_stripe_dropped_then_it_is_rejected_with_stripes_own_code(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    dropped(syncing, stripe_sandbox, 2)

    first = syncing.reports().read()
    again = syncing.reports().read()

    assert (first.rejected, first.unmatched, first.more) == (2, 0, False)
    assert (again.rejected, again.read) == (0, first.read)
    assert syncing.states() == {"rejected": 2, "sent": 1}
    reasons = {row.reason for row in syncing.read("SELECT reason FROM stripe_increment WHERE state = 'rejected'")}
    assert reasons == {"it was taken, and dropped later: meter_event_customer_not_found"}
    assert len(syncing.read("SELECT * FROM stripe_error_report")) == first.read
    assert syncing.confirmer().confirm().confirmed == 1


def test_given_a_report_that_names_fewer_calls_than_it_is_about_then_the_others_are_for_a_person(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    """What does not show for a day was dropped as well: its next generation would be, too."""
    stripe_sandbox.knobs(error_samples_max=1)
    for client_id in ("acme", "berry", "corner"):
        syncing.planned(client_id)
    stripe_sandbox.fault("drop_later", path=EVENTS, count=2, code="timestamp_in_future")
    assert syncing.pusher().push(most=100).sent == 3
    pass_time(syncing, stripe_sandbox)

    report = syncing.reports().read()

    assert (report.rejected, report.unmatched) == (1, 1)
    (kept,) = syncing.read("SELECT count, jsonb_array_length(increments) AS named FROM stripe_error_report")
    assert (kept.count, kept.named) == (2, 1)
    assert syncing.confirmer().confirm().confirmed == 1
    pass_time(syncing, stripe_sandbox, timedelta(days=1))
    assert syncing.confirmer().confirm().quarantined == 1
    assert syncing.states() == {"rejected": 1, "confirmed": 1, "quarantined": 1}
    (row,) = syncing.read("SELECT reason FROM stripe_increment WHERE state = 'quarantined'")
    assert "timestamp_in_future" in row.reason
    assert syncing.planner().plan().reissued == 0


def test_given_a_deleted_customer_then_its_increments_are_rejected_and_nobody_elses(
    syncing: Syncing, stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient
) -> None:
    """L10: also where the customer is deleted between plan and push."""
    gone = syncing.planned("gone", 5)
    made = syncing.planned()
    stripe_client.v1.customers.delete(gone)

    assert syncing.pusher().push(most=100).sent == 2
    pass_time(syncing, stripe_sandbox)
    assert syncing.reports().read().rejected == 1
    assert syncing.confirmer().confirm().confirmed == 1

    states = syncing.read("SELECT client_id, state FROM stripe_increment ORDER BY 1")
    assert [tuple(row) for row in states] == [("acme", "confirmed"), ("gone", "rejected")]
    assert stripe_sandbox.total(made, METER) == 7


def test_given_a_reader_that_is_killed_before_it_says_what_a_report_says_then_the_next_one_does(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    dropped(syncing, stripe_sandbox, 1)
    given = syncing.settings.database_url, stripe_sandbox.url, syncing.clock.now().isoformat()
    command = [sys.executable, "-m", "tests.integration.killed_reader", *given]
    died = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    wait_for_the_dead(syncing.settings.database_url)
    assert len(syncing.read("SELECT * FROM stripe_error_report")) == 1
    assert syncing.states() == {"sent": 2}

    assert syncing.reports().read().rejected == 1

    assert syncing.states() == {"sent": 1, "rejected": 1}


def test_given_reports_of_some_days_when_read_late_then_all_are_read(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    for number in range(3):
        dropped(syncing, stripe_sandbox, 1) if number == 0 else _another(syncing, stripe_sandbox, number)
        pass_time(syncing, stripe_sandbox, timedelta(hours=30))

    assert syncing.reports().read().rejected == 3

    assert syncing.reports().read().rejected == 0
    assert syncing.clock.now() > NOON + timedelta(days=3)


def _another(syncing: Syncing, stripe_sandbox: SandboxControl, number: int) -> None:
    syncing.add(f"another-{number}", f"cus_another{number}")
    syncing.use(f"another-{number}", 2)
    syncing.planner().plan()
    assert syncing.pusher().push(most=100).sent == 1
    pass_time(syncing, stripe_sandbox)
