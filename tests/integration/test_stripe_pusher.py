"""An increment is counted at Stripe at most once, and once as soon as Stripe answers, whatever happens (L8)."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy

from billing.core.errors import Fatal, Unreachable
from billing.core.settings import Settings
from billing.sinks.stripe.gateway import STAND_IN_KEY, Gateway
from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.integration.syncing import METER, NOON, Syncing, at_noon

pytestmark = pytest.mark.integration

EVENTS = "/v1/billing/meter_events"


@pytest.fixture
def syncing(engine: sqlalchemy.Engine, database: Settings, stripe_sandbox: SandboxControl) -> Syncing:
    return at_noon(engine, database, stripe_sandbox)


def test_given_planned_increments_when_pushed_twice_then_stripe_has_them_once(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    customers = {client_id: syncing.planned(client_id, 7) for client_id in ("acme", "berry", "corner")}
    syncing.use("acme", 5)
    syncing.planner().plan()

    first = syncing.pusher().push(most=100)
    second = syncing.pusher().push(most=100)

    assert (first.sent, first.stopped, second.sent) == (4, None, 0)
    totals = {client_id: stripe_sandbox.total(made, METER) for client_id, made in customers.items()}
    assert totals == {"acme": 12, "berry": 7, "corner": 7}
    assert syncing.states() == {"sent": 4}
    attempts = syncing.read("SELECT * FROM stripe_attempt")
    assert {(row.attempt, row.outcome, row.http_status) for row in attempts} == {(1, "taken", 200)}
    assert all(row.request_id and row.finished_at for row in attempts)


def test_given_all_logs_when_pushed_then_no_line_holds_the_key(
    syncing: Syncing, stripe_sandbox: SandboxControl, caplog: pytest.LogCaptureFixture
) -> None:
    syncing.planned()
    caplog.set_level(logging.DEBUG)
    for name in ("stripe", "urllib3"):
        caplog.set_level(logging.DEBUG, logger=name)
    stripe_sandbox.fault("drop", path=EVENTS)

    syncing.pusher().push(most=100)
    syncing.pusher().push(most=100)
    syncing.confirmer().confirm()

    assert METER in caplog.text or "meter_events" in caplog.text
    assert STAND_IN_KEY not in caplog.text
    assert not any(STAND_IN_KEY in str(row) for row in syncing.read("SELECT * FROM stripe_attempt"))


def test_given_a_lost_answer_when_pushed_again_then_the_duplicate_is_success(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    """Each attempt has a key of its own, and all of them one identifier."""
    made = syncing.planned()
    stripe_sandbox.fault("commit_then_close", path=EVENTS)

    first = syncing.pusher().push(most=100)
    assert (first.ambiguous, first.sent) == (1, 0)
    assert stripe_sandbox.total(made, METER) == 7
    second = syncing.pusher().push(most=100)

    assert (second.sent, second.ambiguous) == (1, 0)
    assert stripe_sandbox.total(made, METER) == 7
    attempts = syncing.read("SELECT * FROM stripe_attempt ORDER BY attempt")
    assert [(row.outcome, row.http_status) for row in attempts] == [("unknown", None), ("duplicate", 400)]
    assert [row.idempotency_key.split("#")[1] for row in attempts] == ["1", "2"]
    assert len({row.idempotency_key.split("#")[0] for row in attempts}) == 1


@pytest.mark.parametrize("fault", ["drop", "commit_then_close", "commit_then_error", "error", "unavailable"])
def test_given_no_answer_that_says_what_happened_when_pushed_again_then_counted_once(
    syncing: Syncing, stripe_sandbox: SandboxControl, fault: str
) -> None:
    made = syncing.planned()
    stripe_sandbox.fault(fault, path=EVENTS)

    first = syncing.pusher().push(most=100)
    assert first.ambiguous == 1
    assert syncing.states() == {"ambiguous": 1}
    second = syncing.pusher().push(most=100)

    assert second.sent == 1
    assert stripe_sandbox.total(made, METER) == 7


def test_given_a_call_that_hangs_after_it_was_taken_then_counted_once(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    made = syncing.planned()
    stripe_sandbox.fault("commit_then_hang", path=EVENTS)
    impatient = syncing.pusher(lambda: Gateway(syncing.settings, timeouts_seconds=(60.0, 2.0)))

    assert impatient.push(most=100).ambiguous == 1
    assert syncing.pusher().push(most=100).sent == 1
    assert stripe_sandbox.total(made, METER) == 7


def test_given_too_many_calls_then_tried_again_within_the_push_and_then_left_pending(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    """What was not executed is no doubt: a refusal afterwards would still be the first answer."""
    made = syncing.planned()
    stripe_sandbox.fault("rate_limit", path=EVENTS, count=5)

    first = syncing.pusher().push(most=100)
    assert (first.pending, first.sent) == (1, 0)
    assert syncing.states() == {"pending": 1}
    assert syncing.read("SELECT attempts, first_attempt_at FROM stripe_increment") == [(4, None)]
    assert syncing.pusher().push(most=100).sent == 1

    assert stripe_sandbox.total(made, METER) == 7
    outcomes = syncing.read("SELECT outcome, http_status FROM stripe_attempt ORDER BY attempt")
    assert [tuple(row) for row in outcomes] == [("busy", 429)] * 5 + [("taken", 200)]


def test_given_a_customer_that_stripe_does_not_know_then_rejected_and_nobody_else_waits(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    """One client's error charges and delays no other (L10)."""
    stripe_sandbox.knobs(unknown_customer="refuse")
    syncing.add("wrong", "cus_nobody")
    syncing.use("wrong", 3)
    made = syncing.planned()

    report = syncing.pusher().push(most=100)

    assert (report.sent, report.rejected, report.stopped) == (1, 1, None)
    assert stripe_sandbox.total(made, METER) == 7
    (row,) = syncing.read("SELECT client_id, reason FROM stripe_increment WHERE state = 'rejected'")
    assert row.client_id == "wrong"
    assert "HTTP 400" in row.reason
    assert syncing.pusher().push(most=100).rejected == 0


def test_given_one_client_in_doubt_then_its_refusal_is_no_proof(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    """Given an attempt of which nothing is known, when the next one is refused, then it stays ambiguous."""
    syncing.planned()
    stripe_sandbox.fault("commit_then_close", path=EVENTS)
    syncing.pusher().push(most=100)
    stripe_sandbox.reset()
    stripe_sandbox.set_time(int(NOON.timestamp()))
    stripe_sandbox.knobs(unknown_customer="refuse")
    with syncing.gateway() as gateway:
        gateway.setup()

    report = syncing.pusher().push(most=100)

    assert (report.rejected, report.ambiguous) == (0, 1)


def test_given_a_doubt_of_22_hours_and_a_half_then_it_is_not_sent_again(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    made = syncing.planned()
    stripe_sandbox.fault("drop", path=EVENTS)
    syncing.pusher().push(most=100)

    syncing.clock.advance(timedelta(hours=22, minutes=29))
    stripe_sandbox.fault("drop", path=EVENTS)
    assert syncing.pusher().push(most=100).ambiguous == 1
    syncing.clock.advance(timedelta(minutes=1))
    report = syncing.pusher().push(most=100)

    assert (report.sent, report.ambiguous, report.rejected) == (0, 0, 0)
    assert syncing.states() == {"ambiguous": 1}
    assert stripe_sandbox.total(made, METER) == 0
    assert len(syncing.read("SELECT * FROM stripe_attempt")) == 2


def test_given_a_key_that_stripe_refuses_then_the_push_stops_with_one_line(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    for number in range(8):
        syncing.customer(f"client-{number}")
        syncing.use(f"client-{number}", 5)
    syncing.planner().plan()

    class Refused(Gateway):
        """Its key is taken away after the check."""

        def send(self, payload, *, idempotency_key):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            self.session.client._requestor._options.api_key = "sk_live_notforstandins"
            return super().send(payload, idempotency_key=idempotency_key)

    report = syncing.pusher(lambda: Refused(syncing.settings)).push(most=100)

    assert report.stopped == f"Stripe: '{stripe_sandbox.url}': refuses billing_stripe_api_key (HTTP 401)"
    assert syncing.states() == {"pending": 8}
    assert stripe_sandbox.events() == []
    assert len(syncing.read("SELECT * FROM stripe_attempt")) <= 4
    assert syncing.pusher().push(most=100).sent == 8


def test_given_nobody_who_listens_then_the_push_says_so_before_it_begins(syncing: Syncing) -> None:
    syncing.planned()
    nowhere = Settings(database_url=syncing.settings.database_url, stripe_sandbox_url="http://127.0.0.1:1")

    with pytest.raises(Unreachable, match=r"^Stripe: 'http://127.0.0.1:1': does not answer"):
        syncing.pusher(lambda: Gateway(nowhere)).push(most=100)

    assert syncing.states() == {"pending": 1}


def test_given_silence_in_the_middle_then_the_push_stops_after_a_few_calls(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    """Calls that nobody answers are bounded (L9); what they left is sent by the next push."""
    for number in range(20):
        syncing.customer(f"client-{number:02}")
        syncing.use(f"client-{number:02}", 5)
    syncing.planner().plan()
    stripe_sandbox.fault("commit_then_close", path=EVENTS, count=20)

    report = syncing.pusher().push(most=100)

    assert report.stopped is not None
    assert "calls in a row" in report.stopped
    assert 5 <= report.ambiguous <= 8
    stripe_sandbox.clear_faults()
    assert syncing.pusher().push(most=100).sent == 20
    assert sum(event["value"] for event in _values(stripe_sandbox)) == 100


def test_given_no_meter_then_nothing_is_sent_and_the_line_says_what_to_run(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    syncing.planned()
    stripe_sandbox.reset()

    with pytest.raises(Fatal, match="billing stripe setup"):
        syncing.pusher().push(most=100)

    assert syncing.states() == {"pending": 1}


def test_given_pushers_at_once_then_each_increment_is_sent_by_one_of_them(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    """The stand-in answers 409 to two calls at once for one customer: none is made (L8)."""
    made = syncing.customer("acme")
    for _ in range(12):
        syncing.use("acme", 1)
        syncing.planner().plan()
        syncing.clock.advance(timedelta(minutes=1))
    stripe_sandbox.set_time(int(syncing.clock.now().timestamp()))

    with ThreadPoolExecutor(3) as pool:
        reports = list(pool.map(lambda _: syncing.pusher().push(most=100), range(3)))
    last = syncing.pusher().push(most=100)

    assert sum(report.sent for report in reports) + last.sent == 12
    assert stripe_sandbox.total(made, METER) == 12
    assert {row.outcome for row in syncing.read("SELECT outcome FROM stripe_attempt")} == {"taken"}
    assert len(syncing.read("SELECT * FROM stripe_attempt")) == 12


def _values(stripe_sandbox: SandboxControl) -> list[dict[str, int]]:
    return [{"value": int(event["payload"]["value"])} for event in stripe_sandbox.events()]
