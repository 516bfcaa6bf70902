"""What operators, and clients, are told of the report to Stripe: each crossing once, through the same signals."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import billing.alerts
from billing import admin
from billing.alerts.alert import Alert, body_of
from billing.alerts.announcing import announce
from billing.alerts.deliveries import Deliveries
from billing.alerts.sync import tell_of_sync
from billing.core.clock import SystemClock
from billing.core.settings import Settings
from tests.hearing import hearing
from tests.integration.invoicing import Invoicing, invoicing_on
from tests.webhooks import receiving

pytestmark = pytest.mark.integration

START = (datetime.now(UTC) - timedelta(days=5)).replace(minute=0, second=0, microsecond=0)
PRESENT = (START, START + timedelta(days=30))
EARLIER = (START - timedelta(days=30), START)
LATE = START - timedelta(hours=3)
SIGNALS = ("unreported", "late_usage", "waiting_usage")


@pytest.fixture
def books(database: Settings) -> Iterator[Invoicing]:
    """Open books with a linked client that has used 5 credits."""
    with invoicing_on(database) as opened:
        opened.client("acme", "cus_acme")
        opened.use("acme", 5, START)
        yield opened


@pytest.fixture
def heard() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Listen to the signals of the report: (kind, arguments)."""
    with hearing(*(getattr(billing.alerts, kind) for kind in SIGNALS)) as heard:
        yield heard


def alerts(books: Invoicing) -> list[tuple[str, str, int | None, str]]:
    """Tell what there is to tell; return all alerts, the oldest first: kind, client, increment, delivery."""
    tell_of_sync(books.runtime)
    found = reversed(admin.alerts(books.settings))
    return [(one.kind, one.client_id, one.increment_id, one.delivery) for one in found]


@pytest.mark.parametrize("state", ["pending", "ambiguous"])
def test_given_increments_that_nothing_moves_for_days_then_the_operator_is_told_of_one_of_each_client(
    books: Invoicing, state: str
) -> None:
    """Given what no push, look or plan can do, as after a change of keys, then it does not wait untold for ever."""
    first = books.increment("acme", PRESENT, {("page", START): (0, 3)}, state=state, reason="why")
    books.increment("acme", PRESENT, {("page", START): (3, 5)}, state=state)
    assert alerts(books) == []
    books.sql("UPDATE stripe_increment SET last_attempt_at = planned_at")
    books.runtime.clock = Later()

    assert alerts(books) == alerts(books) == [("unreported", "acme", first, "none")]

    assert f"{state} for days: why" in str(books.sql("SELECT found FROM alert"))


class Later(SystemClock):
    """A clock that is four days on."""

    def now(self) -> datetime:
        """Return the instant."""
        return super().now() + timedelta(days=4)


@pytest.mark.parametrize("state", ["rejected", "quarantined"])
def test_given_an_increment_for_a_person_then_the_operator_is_told_once_for_each_identifier(
    books: Invoicing, heard: list[tuple[str, dict[str, Any]]], state: str
) -> None:
    """Given a webhook, then it is told nothing; another generation that ends the same way is told of again."""
    admin.set_webhook(books.settings, "acme", "https://a.test")
    number = books.increment("acme", PRESENT, {("page", START): (0, 5)}, state=state, reason="no such customer")
    once = ("unreported", "acme", number, "none")

    assert alerts(books) == alerts(books) == [once]
    assert announce(books.runtime) == 1
    ((kind, named),) = heard
    assert (kind, named["client_id"], named["increment_id"]) == ("billing_unreported", "acme", number)
    assert named["found"] == f"{state}: no such customer (see: billing sync show {number})"

    books.sql("UPDATE stripe_increment SET state = 'quarantined', reason = 'another reason'")
    assert alerts(books) == [once]
    books.sql("UPDATE stripe_increment SET generation = 2, identifier = 'b1-again', state = 'pending'")
    assert alerts(books) == [once]
    books.sql("UPDATE stripe_increment SET state = 'rejected'")
    assert alerts(books) == [once, once]


@pytest.mark.parametrize("state", ["pending", "sending", "sent", "confirmed", "ambiguous"])
def test_given_an_increment_that_finds_its_own_way_then_nobody_is_told(books: Invoicing, state: str) -> None:
    books.increment("acme", PRESENT, {("page", START): (0, 5)}, state=state)
    assert alerts(books) == []


def test_given_late_usage_on_a_later_invoice_then_operator_and_client_are_told_once(
    books: Invoicing, heard: list[tuple[str, dict[str, Any]]]
) -> None:
    admin.set_webhook(books.settings, "acme", "https://a.test")
    books.use("acme", 3, LATE)
    number = books.increment("acme", PRESENT, {("page", LATE): (0, 3), ("page", START): (0, 5)})

    assert alerts(books) == alerts(books) == [("late_usage", "acme", number, "pending")]
    announce(books.runtime)
    ((_, named),) = heard
    assert named["found"] == (
        f"8 units of billing_credits are on the invoice of the period from {START:%Y-%m-%d}: among them is usage from"
        f" {LATE:%Y-%m-%d} on that came after the invoice of its own period was final"
    )


@pytest.mark.parametrize(
    ("kind", "state", "end"),
    [
        ("invoice_item", "pending", "they are a line of their own on the next invoice"),
        ("meter_event", "written_off", "they are written off, and on no invoice"),
    ],
)
def test_given_late_usage_on_a_line_of_its_own_or_on_none_then_the_client_is_told_so_by_signal_and_webhook(
    books: Invoicing, heard: list[tuple[str, dict[str, Any]]], kind: str, state: str, end: str
) -> None:
    """In words that name units, period and what becomes of them, and nothing of how billing is set up."""
    with receiving() as receiver:
        admin.set_webhook(books.settings, "acme", receiver.url)
        books.use("acme", 3, LATE)
        reason = "of the operator's own"
        number = books.increment("acme", EARLIER, {("page", LATE): (0, 3)}, kind=kind, state=state, reason=reason)

        assert alerts(books) == [("late_usage", "acme", number, "pending")]
        announce(books.runtime)
        deliveries = Deliveries(books.runtime)
        deliveries.step()
        deliveries.finish()
        deliveries.close()

    words = f"3 units of billing_credits came after the period to {START:%Y-%m-%d} had closed: {end}"
    assert [(name, named["found"]) for name, named in heard] == [("billing_late_usage", words)]
    (call,) = receiver.calls
    assert call.message["data"] == {
        "alert_id": heard[0][1]["alert_id"],
        "client_id": "acme",
        "increment_id": number,
        "found": words,
    }


def test_given_what_no_late_usage_is_then_nobody_is_told_of_any(books: Invoicing) -> None:
    """Returns carried into a later period, what a person wrote off, what is older than any news."""
    books.use("acme", 9, LATE)
    books.increment("acme", EARLIER, {("page", LATE): (0, 9)})
    books.give_back("acme", 2, LATE)
    books.increment("acme", PRESENT, {("page", LATE): (0, -2), ("page", START): (0, 4)})
    off = books.increment("acme", PRESENT, {("page", START): (4, 5)}, state="written_off")
    books.sql("INSERT INTO stripe_resolution VALUES (%s, 1, 'write-off', 'quarantined', 'agreed', now())", off)
    old = START - timedelta(days=100)
    books.use("acme", 1, old)
    books.increment("acme", (old, old + timedelta(days=30)), {("page", old): (0, 1)}, state="written_off")

    assert alerts(books) == []


def test_given_usage_that_waits_for_a_customer_then_the_operator_is_told_once_until_it_can_be_planned(
    books: Invoicing, heard: list[tuple[str, dict[str, Any]]]
) -> None:
    """After a day. Earlier usage that comes meanwhile is part of the same wait; after its end there may be another."""
    books.client("new")
    books.use("new", 1, datetime.now(UTC))
    books.client("globex")
    books.use("globex", 7, START)
    once = ("waiting_usage", "globex", None, "none")

    assert alerts(books) == alerts(books) == [once]
    announce(books.runtime)
    ((_, named),) = heard
    assert named["found"].startswith("7 credits wait: no customer is linked (billing client link")
    books.use("globex", 2, LATE)
    assert alerts(books) == [once]

    books.sql("UPDATE usage_rollup SET planned = credits")
    assert alerts(books) == [once]
    books.use("globex", 1, START + timedelta(hours=2))
    assert alerts(books) == [once, once]


def test_given_a_customer_without_a_subscription_then_its_reason_is_told_unless_periods_are_months(
    books: Invoicing, database: Settings
) -> None:
    books.sql("INSERT INTO stripe_period_read VALUES ('cus_acme', now(), 'the customer has no subscription')")
    with invoicing_on(dataclasses.replace(database, stripe_periods="calendar")) as months:
        assert alerts(months) == []

    assert alerts(books) == [("waiting_usage", "acme", None, "none")]
    assert admin.alerts(books.settings)[0].found == "5 credits wait: the customer has no subscription"


def test_given_a_meter_that_a_customer_is_not_subscribed_to_then_its_usage_waits(books: Invoicing) -> None:
    """Given a subscription to one meter, then usage of another one waits, and is told of; that of the first is not."""
    books.sql("INSERT INTO stripe_period_read VALUES ('cus_acme', now(), '')")
    books.sql(
        "INSERT INTO stripe_period (customer_id, event_name, period_start, period_end, read_at) "
        "VALUES ('cus_acme', 'billing_credits', now() - interval '9 days', now() + interval '9 days', now())"
    )
    assert alerts(books) == []

    books.sql("INSERT INTO meter (event_name) VALUES ('tokens')")
    books.sql("INSERT INTO sku_meter (sku, event_name) SELECT DISTINCT sku, 'tokens' FROM usage_rollup")

    assert alerts(books) == [("waiting_usage", "acme", None, "none")]
    assert admin.alerts(books.settings)[0].found == "5 credits wait: no billing period of meter tokens is known"


def test_given_nobody_who_is_linked_then_nobody_waits_for_a_link(database: Settings) -> None:
    with invoicing_on(database) as books:
        books.client("globex")
        books.use("globex", 7, START)
        assert alerts(books) == []


def test_given_a_late_usage_alert_then_its_webhook_names_increment_and_finding() -> None:
    alert = Alert(
        alert_id=7,
        client_id="acme",
        kind="late_usage",
        threshold_percent=0,
        available=0,
        granted=0,
        occurred_at=START,
        found="8 units",
        increment_id=3,
    )
    assert body_of(alert) == (
        b'{"type":"billing.late_usage","timestamp":"' + START.isoformat().encode() + b'",'
        b'"data":{"alert_id":7,"client_id":"acme","increment_id":3,"found":"8 units"}}'
    )
