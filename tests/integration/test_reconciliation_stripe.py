"""L8 at Stripe: its totals against what was sent, over a real socket to the stand-in."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import stripe

from billing.core.settings import Settings
from billing.reconciliation.recording import last_run
from billing.sinks.sink import Answer, Payload
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.keys import KeyKind
from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.integration.reconciling import Books, books_on, compared, texts

pytestmark = pytest.mark.integration


@pytest.fixture
def books(database: Settings, redis_url: str, stripe_sandbox: SandboxControl) -> Iterator[Books]:
    """Open books with Stripe's stand-in."""
    with books_on(database, redis_url, stripe_sandbox_url=stripe_sandbox.url, stripe_periods="calendar") as opened:
        yield opened


@pytest.fixture
def gateway(books: Books) -> Iterator[Gateway]:
    """Make the meter, and a linked client that has used 42 credits."""
    with Gateway(books.settings) as gateway:
        gateway.setup()
        books.client("acme", 100)
        books.use("acme", 42)
        customer = gateway.create_customer("acme")
        books.sql("INSERT INTO stripe_customer (client_id, customer_id) VALUES ('acme', %s)", customer)
        yield gateway


def _customer(books: Books) -> str:
    return str(books.sql("SELECT customer_id FROM stripe_customer")[0][0])


def _send(books: Books, gateway: Gateway, units: int) -> None:
    """Send units that no increment of ours knows of, or that one does."""
    payload = Payload(
        identifier=uuid.uuid4().hex,
        event_name=books.settings.stripe_meter,
        customer_id=_customer(books),
        units=units,
        event_at=datetime.now(UTC),
    )
    assert gateway.send(payload, idempotency_key=uuid.uuid4().hex).answer is Answer.TAKEN


def _plan(books: Books, state: str, *, sent_ago: timedelta = timedelta(hours=1)) -> None:
    books.plan("acme", state=state, customer_id=_customer(books))
    books.sql("UPDATE stripe_increment SET last_attempt_at = now() - %s", sent_ago)


def test_given_what_was_sent_when_reconciled_then_stripe_has_it_to_the_unit(books: Books, gateway: Gateway) -> None:
    _plan(books, "confirmed")
    _send(books, gateway, 42)

    report = books.reconcile(stripe=True)

    assert report.ok, report.discrepancies
    assert compared(report, "L8 Stripe") == {
        "customers": 1, "periods": 1, "units": 42, "not visible yet": 0, "doubtful": 0,
    }  # fmt: skip
    assert books.sql("SELECT name FROM stripe_budget") == []  # the stand-in bounds nobody


def test_given_books_of_stripes_own_when_reconciled_then_the_fleets_rate_covers_these_calls(
    books: Books, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L9: reconciling takes its turns from the same budget as everything else that reads at Stripe."""
    monkeypatch.setattr("billing.sinks.stripe.rates.key_kind", lambda settings: KeyKind.TEST)
    _send(books, gateway, 1)

    books.reconcile(stripe=True)

    assert books.sql("SELECT name FROM stripe_budget") == [("reads",)]


@pytest.mark.parametrize("state", ["none", "pending", "sent"])
def test_given_an_event_sent_by_hand_when_reconciled_then_it_is_found(
    books: Books, gateway: Gateway, state: str
) -> None:
    """One unit too many at Stripe: also for a customer of whom nothing was planned, or nothing sent."""
    if state != "none":
        _plan(books, state)
    if state == "sent":
        _send(books, gateway, 42)
    assert books.reconcile(stripe=True).ok

    _send(books, gateway, 1)
    report = books.reconcile(stripe=True)

    (found,) = report.discrepancies
    assert (found.law, found.client_id) == ("L8 Stripe", "acme")
    known = 42 if state == "sent" else 0
    assert f"Stripe has {known + 1} units, {known} units were sent" in found.found
    assert _customer(books) in found.found
    (row,) = found.rows
    assert row["increments"] == ([1] if state == "sent" else [])


def test_given_a_difference_at_stripe_when_the_next_run_leaves_stripe_out_then_it_is_not_the_last_word(
    books: Books, gateway: Gateway
) -> None:
    """What the doctor says comes from a run that looked at everything."""
    _send(books, gateway, 1)
    assert not books.reconcile(stripe=True).ok
    assert books.reconcile(stripe=False).ok

    with books.runtime.engine.connect() as connection:
        last = last_run(connection)

    assert last is not None
    assert (last.held, last.discrepancies) == (False, 1)


def test_given_units_that_stripe_lacks_when_reconciled_then_they_are_missed(books: Books, gateway: Gateway) -> None:
    _plan(books, "sent")
    _send(books, gateway, 41)

    report = books.reconcile(stripe=True)

    assert "Stripe has 41 units, 42 units were sent" in texts(report, "L8 Stripe")


def test_given_units_that_were_just_sent_when_stripe_does_not_show_them_then_they_are_counted_and_hold(
    books: Books, gateway: Gateway
) -> None:
    """Stripe's summaries lag behind its events; after a bound that is no excuse any more."""
    _plan(books, "sent", sent_ago=timedelta(minutes=1))
    report = books.reconcile(stripe=True)
    assert report.ok, report.discrepancies
    assert compared(report, "L8 Stripe")["not visible yet"] == 42

    books.sql("UPDATE stripe_increment SET last_attempt_at = now() - interval '11 minutes'")
    assert not books.reconcile(stripe=True).holds


@pytest.mark.parametrize("arrived", [42, 0])
@pytest.mark.parametrize("state", ["sending", "ambiguous", "quarantined"])
def test_given_units_whose_fate_is_open_when_reconciled_then_stripe_may_have_them_or_not(
    books: Books, gateway: Gateway, state: str, arrived: int
) -> None:
    _plan(books, state)
    if arrived:
        _send(books, gateway, arrived)

    report = books.reconcile(stripe=True)

    assert report.ok, report.discrepancies
    assert compared(report, "L8 Stripe")["doubtful"] == 42
    _send(books, gateway, 43)
    assert not books.reconcile(stripe=True).holds


def test_given_an_increment_that_is_sent_meanwhile_when_reconciled_then_it_is_no_discrepancy(
    books: Books, gateway: Gateway
) -> None:
    """PostgreSQL was read before Stripe: what was sent in between is there, and explained by a second look."""
    _plan(books, "pending")

    class Meanwhile:
        """Has the increment sent while Stripe is asked."""

        def total(self, customer_id: str, event_name: str, start: datetime, end: datetime) -> int:
            """Return the total after the increment has gone."""
            _send(books, gateway, 42)
            books.sql("UPDATE stripe_increment SET state = 'sent', last_attempt_at = now()")
            return gateway.total(customer_id, event_name, start, end)

    report = books.reconcile(stripe=True, totals=Meanwhile())

    assert report.ok, report.discrepancies


def test_given_a_stripe_that_is_away_when_reconciled_then_the_other_laws_are_compared(
    database: Settings, redis_url: str, books: Books, gateway: Gateway
) -> None:
    """L10: Stripe's absence is reported once, as not compared."""
    _plan(books, "sent")
    away: Any = dataclasses.replace(books.settings, stripe_sandbox_url="http://127.0.0.1:1")
    with Gateway(away) as nowhere:
        report = books.reconcile(stripe=True, totals=nowhere)

    assert report.holds
    assert not report.complete
    (law,) = [law for law in report.laws if law.not_compared]
    assert law.law == "L8 Stripe"
    ((reason, number),) = law.not_compared.items()
    assert "127.0.0.1:1" in reason
    assert number == 1
    assert compared(report, "L2 spent")["credits"] == 42


def test_given_a_customer_that_stripe_refuses_when_reconciled_then_the_others_are_compared(
    books: Books, gateway: Gateway
) -> None:
    """L10: one client's error delays no other."""
    books.client("aaa", 10)
    books.sql("INSERT INTO stripe_customer (client_id, customer_id) VALUES ('aaa', 'cus_nobody')")
    _plan(books, "sent")
    _send(books, gateway, 42)

    report = books.reconcile(stripe=True)

    assert compared(report, "L8 Stripe")["units"] == 42
    assert {found.client_id for found in report.discrepancies} <= {"aaa"}


@pytest.mark.parametrize("kind", ["unavailable", "decimals"])
def test_given_one_customer_whose_total_cannot_be_read_then_the_others_are_compared(
    books: Books, gateway: Gateway, stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, kind: str
) -> None:
    """L10: Stripe fails for the first customer alone, or somebody sent it a fraction."""
    _plan(books, "sent")
    _send(books, gateway, 42)
    books.client("aaa", 10)
    failing = gateway.create_customer("aaa")
    books.sql("INSERT INTO stripe_customer (client_id, customer_id) VALUES ('aaa', %s)", failing)
    if kind == "unavailable":
        stripe_sandbox.fault(kind, path="*/event_summaries", customer=failing, count=100)
    else:
        stripe_sandbox.knobs(decimals=True)
        payload = {"stripe_customer_id": failing, "value": "0.5"}
        stripe_client.v1.billing.meter_events.create({"event_name": books.settings.stripe_meter, "payload": payload})

    report = books.reconcile(stripe=True)

    assert compared(report, "L8 Stripe")["units"] == 42
    assert not report.ok
    if kind == "decimals":
        assert "0.5: must be whole" in texts(report, "L8 Stripe")


@pytest.mark.parametrize("state", ["sent", "ambiguous"])
def test_given_an_open_increment_when_one_unit_differs_then_it_hides_behind_none(
    books: Books, gateway: Gateway, state: str
) -> None:
    """What was just sent, or is in doubt, is at Stripe whole or not at all: 41 of 42 units are a discrepancy."""
    _plan(books, state, sent_ago=timedelta(minutes=1))
    _send(books, gateway, 41)
    assert "Stripe has 41 units" in texts(books.reconcile(stripe=True), "L8 Stripe")

    _send(books, gateway, 1)
    assert books.reconcile(stripe=True).ok


def test_given_units_sent_with_another_kind_of_key_when_reconciled_then_they_are_not_compared(
    books: Books, gateway: Gateway
) -> None:
    """A test key's units are not missed in the live books, nor called fine."""
    _plan(books, "sent")
    books.sql("UPDATE stripe_increment SET sent_to = 'live'")

    report = books.reconcile(stripe=True)

    assert report.holds
    assert not report.ok
    (law,) = [law for law in report.laws if law.not_compared]
    assert dict(law.not_compared) == {"sent with the key of another kind: live, not stand-in": 1}
