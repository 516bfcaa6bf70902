"""One client's usage goes to Stripe now, at the stand-in with subscriptions, and what is left is named (L8)."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy
import stripe

from billing import admin
from billing.core.clock import SystemClock
from billing.core.errors import UnknownClient
from billing.core.settings import Settings
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.contract.metering import metered_price
from tests.integration.syncing import METER, Syncing, TestClock
from tests.terminal import Terminal

pytestmark = pytest.mark.integration


@pytest.fixture
def syncing(engine: sqlalchemy.Engine, database: Settings, stripe_sandbox: SandboxControl) -> Syncing:
    """Return a database beside a stand-in whose meter has a price, at the machine's time."""
    settings = Settings(database_url=database.database_url, stripe_sandbox_url=stripe_sandbox.url)
    return Syncing(engine=engine, settings=settings, clock=TestClock(SystemClock().now()))


@pytest.fixture
def price(syncing: Syncing, stripe_client: stripe.StripeClient) -> str:
    with Gateway(syncing.settings) as gateway:
        meter = gateway.setup()
    return metered_price(stripe_client, meter.meter_id)


def subscribed(syncing: Syncing, client: stripe.StripeClient, price: str, name: str) -> str:
    """Add a client whose customer has had a subscription for a day; return the subscription."""
    now = int(syncing.clock.now().timestamp())
    with SandboxControl(syncing.settings.stripe_sandbox_url) as control:
        control.set_time(now - 86_400)
        made = client.v1.subscriptions.create({"customer": syncing.customer(name), "items": [{"price": price}]})
        control.set_time(now)
    return made.id


def test_a_flush_plans_and_sends_one_clients_usage_and_says_that_nothing_is_left(
    syncing: Syncing, stripe_client: stripe.StripeClient, stripe_sandbox: SandboxControl, price: str
) -> None:
    for name in ("acme", "globex"):
        subscribed(syncing, stripe_client, price, name)
        syncing.use(name, 7, hour=syncing.clock.now() - timedelta(hours=2))

    report = admin.sync_flush(syncing.settings, "acme")

    assert (report.increments, report.sent, report.why, report.is_complete) == (1, 1, (), True)
    (row,) = syncing.read("SELECT client_id, customer_id, state FROM stripe_increment")
    assert (row.client_id, row.state) == ("acme", "sent")
    assert stripe_sandbox.total(row.customer_id, METER) == 7
    again = admin.sync_flush(syncing.settings, "acme")
    assert (again.increments, again.sent, again.is_complete) == (0, 0, True)
    admin.close(syncing.settings)


def test_a_flush_names_what_is_left_and_fails_when_it_should_be_gone(
    syncing: Syncing, shop: Terminal, stripe_sandbox: SandboxControl, price: str, stripe_client: stripe.StripeClient
) -> None:
    """Given clients with something left, then each says what and why; less than a unit is no failure."""
    terminal = Terminal({**shop.environment, "BILLING_STRIPE_SANDBOX_URL": stripe_sandbox.url}, shop.directory)
    assert price
    syncing.add("unlinked")
    syncing.customer("unsubscribed")
    for name in ("unlinked", "unsubscribed"):
        syncing.use(name, 7)

    answer = terminal.type("sync", "flush", "unlinked")
    assert answer.code == 1
    assert "left: 7 credits are not planned: the client is not linked to a Stripe customer" in answer.out
    answer = terminal.type("sync", "flush", "unsubscribed")
    assert answer.code == 1
    assert "left: 7 credits are not planned: " in answer.out
    assert "subscription" in answer.out

    with syncing.engine.begin() as connection:
        connection.execute(sqlalchemy.text("INSERT INTO meter (event_name, credits_per_unit) VALUES ('large', 100)"))
        connection.execute(sqlalchemy.text("INSERT INTO sku_meter (sku, event_name) VALUES ('bit', 'large')"))
    subscribed(syncing, stripe_client, price, "acme")
    syncing.use("acme", 7, sku="bit")
    found = terminal.type("sync", "flush", "acme", "--json")
    assert found.code == 0
    assert found.json()["left"] == {
        "linked": True,
        "credits": 0,
        "remainder": 7,
        "carried": 0,
        "increments": [],
    }
    assert "nobody" in terminal.type("sync", "flush", "nobody").err


def test_a_flush_of_a_client_that_is_not_known_is_refused(syncing: Syncing) -> None:
    with pytest.raises(UnknownClient):
        admin.sync_flush(syncing.settings, "nobody")
    admin.close(syncing.settings)


def test_a_flush_says_what_may_have_arrived(
    syncing: Syncing, stripe_client: stripe.StripeClient, stripe_sandbox: SandboxControl, price: str
) -> None:
    """Given a Stripe that takes an event and does not answer, then the increment is ambiguous, and left."""
    subscribed(syncing, stripe_client, price, "acme")
    syncing.use("acme", 7, hour=syncing.clock.now() - timedelta(hours=2))
    stripe_sandbox.fault("commit_then_error", path="/v1/billing/meter_events")

    report = admin.sync_flush(syncing.settings, "acme")

    assert not report.is_complete
    assert [(one.state, one.units) for one in report.left.increments] == [("ambiguous", 7)]
    assert "1 increments with 7 units are ambiguous" in report.why[0]
    assert admin.sync_flush(syncing.settings, "acme").is_complete
    admin.close(syncing.settings)
