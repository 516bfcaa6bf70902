"""How doubt ends: absent for a day is sent anew, counted twice is taken back, a person resolves the rest (L8)."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy

from billing.core.errors import Conflict, InvalidValue
from billing.core.settings import Settings
from billing.sinks.stripe.sandbox.control import SandboxControl
from billing.sinks.sync.postgres.log import PostgresLog
from billing.sinks.sync.resolving import Resolution, resolve
from tests.integration.syncing import METER, Syncing, at_noon

pytestmark = pytest.mark.integration

EVENTS = "/v1/billing/meter_events"
ADJUSTMENTS = "/v1/billing/meter_event_adjustments"
DAY = timedelta(days=1)


@pytest.fixture
def syncing(engine: sqlalchemy.Engine, database: Settings, stripe_sandbox: SandboxControl) -> Syncing:
    return at_noon(engine, database, stripe_sandbox)


def pass_time(syncing: Syncing, stripe_sandbox: SandboxControl, delta: timedelta) -> None:
    """Let time pass, for us and for Stripe."""
    syncing.clock.advance(delta)
    stripe_sandbox.advance(int(delta.total_seconds()))


def given_up(syncing: Syncing, stripe_sandbox: SandboxControl, fault: str) -> str:
    """Plan one increment whose call had no answer, and look for it in vain for a day; return its customer."""
    made = syncing.planned()
    stripe_sandbox.fault(fault, path=EVENTS)
    assert syncing.pusher().push(most=100).ambiguous == 1
    for delta in (DAY, DAY):
        pass_time(syncing, stripe_sandbox, delta)
        assert syncing.pusher().push(most=100).sent == 0
        assert syncing.confirmer().confirm().confirmed == 0
    return made


def test_given_a_call_that_never_arrived_when_absent_for_a_day_then_it_is_sent_under_another_identifier(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    made = given_up(syncing, stripe_sandbox, "drop")
    assert syncing.states() == {"ambiguous": 1}

    assert syncing.planner().plan().reissued == 1
    assert syncing.pusher().push(most=100).sent == 1

    assert syncing.confirmer().confirm().confirmed == 0  # what shows may be the first one's
    pass_time(syncing, stripe_sandbox, 2 * DAY)
    assert syncing.confirmer().confirm().confirmed == 1
    assert stripe_sandbox.total(made, METER) == 7
    generations = syncing.read("SELECT generation, identifier FROM stripe_generation ORDER BY 1")
    assert [row.generation for row in generations] == [1, 2]
    assert len({row.identifier for row in generations}) == 2
    syncing.laws()


def test_given_looks_that_are_not_a_day_apart_then_nothing_is_sent_anew(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    """Many looks in an hour are one."""
    syncing.planned()
    stripe_sandbox.fault("drop", path=EVENTS)
    syncing.pusher().push(most=100)
    pass_time(syncing, stripe_sandbox, DAY)
    for _ in range(5):
        syncing.confirmer().confirm()
        pass_time(syncing, stripe_sandbox, timedelta(hours=4))

    assert syncing.planner().plan().reissued == 0
    assert syncing.read("SELECT absence_checks FROM stripe_increment") == [(1,)]


def test_given_an_event_that_shows_after_two_days_then_the_second_one_is_taken_back(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    """Sums that were silent for longer than anybody has seen: the client pays once in the end."""
    stripe_sandbox.knobs(summary_lag_seconds=60 * 86_400)
    made = given_up(syncing, stripe_sandbox, "commit_then_close")
    assert syncing.planner().plan().reissued == 1
    assert syncing.pusher().push(most=100).sent == 1
    stripe_sandbox.knobs(summary_lag_seconds=0)
    assert stripe_sandbox.total(made, METER) == 14

    twice = syncing.confirmer().confirm()

    assert (twice.confirmed, twice.quarantined, twice.withdrawn) == (0, 1, 1)
    latest = "SELECT idempotency_key, outcome, reason FROM stripe_attempt ORDER BY attempt DESC LIMIT 1"
    (attempt,) = syncing.read(latest)
    (identifier,) = syncing.read("SELECT identifier FROM stripe_increment")[0]
    assert tuple(attempt) == (f"{identifier}#3", "taken", "withdrawal")
    again = syncing.confirmer().confirm()
    assert (again.confirmed, again.withdrawn) == (0, 0)
    pass_time(syncing, stripe_sandbox, timedelta(minutes=2))
    assert syncing.confirmer().confirm().confirmed == 1
    assert stripe_sandbox.total(made, METER) == 7
    assert len([call for call in stripe_sandbox.requests() if call["path"] == ADJUSTMENTS]) == 1


def test_given_a_withdrawal_that_nobody_answers_then_the_next_run_makes_it(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    """Also where the process ended: what is on record as a call without an answer is asked for again, once more."""
    stripe_sandbox.knobs(summary_lag_seconds=60 * 86_400)
    made = given_up(syncing, stripe_sandbox, "commit_then_close")
    syncing.planner().plan()
    syncing.pusher().push(most=100)
    stripe_sandbox.knobs(summary_lag_seconds=0)
    stripe_sandbox.fault("drop", path=ADJUSTMENTS)

    assert syncing.confirmer().confirm().withdrawn == 0
    assert syncing.confirmer().confirm().withdrawn == 1

    pass_time(syncing, stripe_sandbox, timedelta(minutes=2))
    assert syncing.confirmer().confirm().confirmed == 1
    assert stripe_sandbox.total(made, METER) == 7
    outcomes = [row.outcome for row in syncing.read("SELECT outcome FROM stripe_attempt ORDER BY attempt")]
    assert outcomes == ["unknown", "taken", "unknown", "taken"]


def test_given_a_customer_whose_sums_are_refused_for_two_days_then_a_person_is_to_look(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    """L10: a customer that Stripe does not know is nobody else's matter."""
    syncing.add("lost", "cus_nobody")
    syncing.use("lost", 3)
    syncing.planned()
    assert syncing.pusher().push(most=100).sent == 2
    first = syncing.confirmer().confirm()
    assert (first.confirmed, first.quarantined) == (1, 0)
    assert syncing.states() == {"confirmed": 1, "sent": 1}

    pass_time(syncing, stripe_sandbox, 2 * DAY + timedelta(minutes=1))

    assert syncing.confirmer().confirm().quarantined == 1
    assert syncing.states() == {"confirmed": 1, "quarantined": 1}


def said(syncing: Syncing, resolved_as: str, reason: str = "looked at Stripe's dashboard") -> str:
    """Resolve the one increment; return its state."""
    (increment_id,) = syncing.read("SELECT increment_id FROM stripe_increment")[0]
    resolution = Resolution(resolved_as=resolved_as, reason=reason, resolved_at=syncing.clock.now())  # type: ignore[arg-type]
    return resolve(PostgresLog(syncing.engine), increment_id, resolution).state.value


@pytest.mark.parametrize(
    ("resolved_as", "state"), [("confirmed", "confirmed"), ("resend", "pending"), ("write-off", "written_off")]
)
def test_given_an_increment_in_doubt_when_a_person_resolves_it_then_it_is_on_record(
    syncing: Syncing, stripe_sandbox: SandboxControl, resolved_as: str, state: str
) -> None:
    """With what they said, why, and how they found it; the same again changes nothing."""
    syncing.planned()
    stripe_sandbox.fault("drop", path=EVENTS)
    syncing.pusher().push(most=100)
    with pytest.raises(Conflict, match="and not sent just now"):
        said(syncing, resolved_as)  # the call may still arrive
    pass_time(syncing, stripe_sandbox, timedelta(minutes=2))

    assert said(syncing, resolved_as) == state
    assert said(syncing, resolved_as) == state

    (row,) = syncing.read("SELECT resolved_as, was, reason, generation FROM stripe_resolution")
    assert tuple(row) == (resolved_as, "ambiguous", "looked at Stripe's dashboard", 1)
    assert syncing.states() == {state: 1}
    syncing.laws()


def test_given_a_rejected_increment_when_resent_then_its_next_generation_is_sent(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    stripe_sandbox.knobs(unknown_customer="refuse")
    syncing.add("acme", "cus_nobody")
    syncing.use("acme", 3)
    syncing.planner().plan()
    assert syncing.pusher().push(most=100).rejected == 1
    stripe_sandbox.knobs(unknown_customer="drop")
    syncing.clock.advance(timedelta(minutes=3))

    assert said(syncing, "resend") == "pending"
    assert syncing.pusher().push(most=100).sent == 0
    assert syncing.planner().plan().reissued == 1
    stripe_sandbox.advance(180)

    assert syncing.pusher().push(most=100).sent == 1
    assert [row.generation for row in syncing.read("SELECT generation FROM stripe_increment")] == [2]


@pytest.mark.parametrize("pushed", [False, True])
def test_given_an_increment_that_finds_its_own_way_then_no_person_resolves_it(
    syncing: Syncing, *, pushed: bool
) -> None:
    """What is planned or sent is nobody's decision: one clear line says so."""
    syncing.planned()
    if pushed:
        syncing.pusher().push(most=100)
    before = syncing.states()

    with pytest.raises(Conflict, match=f"is {'sent' if pushed else 'pending'}: only what is rejected, quarantined or"):
        said(syncing, "write-off")

    assert syncing.states() == before
    assert syncing.read("SELECT * FROM stripe_resolution") == []


def test_given_nothing_that_says_anything_then_it_is_refused(syncing: Syncing) -> None:
    syncing.planned()
    log = PostgresLog(syncing.engine)
    good = Resolution(resolved_as="confirmed", reason="seen", resolved_at=syncing.clock.now())

    with pytest.raises(InvalidValue, match="as: 'later': must be one of confirmed, resend, write-off"):
        said(syncing, "later")
    for reason in ("", "   ", "x" * 501):
        with pytest.raises(InvalidValue, match="reason"):
            said(syncing, "confirmed", reason)
    with pytest.raises(InvalidValue, match="increment: 4711: is not a known increment"):
        resolve(log, 4711, good)
