"""What is wrong with one meter stops its own increments only, and is said in one line (L10)."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy
import stripe

from billing.core.errors import Fatal
from billing.core.settings import Settings
from billing.sinks.sink import Payload, Reply
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.contract.metering import make_meter
from tests.integration.syncing import METER, Syncing, at_noon

pytestmark = pytest.mark.integration

SEARCHES = "searches"


@pytest.fixture
def syncing(engine: sqlalchemy.Engine, database: Settings, stripe_sandbox: SandboxControl) -> Syncing:
    """Make a shop with two meters, of which Stripe has the first."""
    made = at_noon(engine, database, stripe_sandbox)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("INSERT INTO meter (event_name) VALUES ('searches')"))
        connection.execute(sqlalchemy.text("INSERT INTO sku_meter (sku, event_name) VALUES ('search', 'searches')"))
    return made


def searches(client: stripe.StripeClient, **more: Any) -> str:
    """Make the second meter at Stripe; return its id."""
    return str(make_meter(client, event_name=SEARCHES, **more).id)


def both(syncing: Syncing, client_id: str) -> str:
    """Plan usage of both meters for a new client; return its customer."""
    made = syncing.customer(client_id)
    syncing.use(client_id, 7)
    syncing.use(client_id, 5, sku="search")
    syncing.planner().plan()
    return made


def test_given_two_meters_then_each_gets_its_own(
    syncing: Syncing, stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient
) -> None:
    searches(stripe_client)
    made = both(syncing, "acme")

    report = syncing.pusher().push(most=100)

    assert (report.sent, report.refused, report.stopped) == (2, (), None)
    assert (stripe_sandbox.total(made, METER), stripe_sandbox.total(made, SEARCHES)) == (7, 5)
    assert syncing.confirmer().confirm().confirmed == 2


def test_given_a_meter_that_is_not_there_then_its_increments_wait_and_the_others_are_sent(
    syncing: Syncing, stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient
) -> None:
    made = both(syncing, "acme")

    first = syncing.pusher().push(most=100)

    assert (first.sent, first.rejected, first.stopped) == (1, 0, None)
    (line,) = first.refused
    assert SEARCHES in line
    assert "billing stripe setup" in line
    assert "\n" not in line
    assert syncing.states() == {"sent": 1, "pending": 1}
    searches(stripe_client)
    assert syncing.pusher().push(most=100).sent == 1
    assert stripe_sandbox.total(made, SEARCHES) == 5


def test_given_more_for_a_meter_that_is_not_there_than_one_push_sends_then_the_others_are_sent(
    syncing: Syncing,
) -> None:
    """L10: what waits for its meter leaves its place to others."""
    for number in range(5):
        client_id = f"client-{number}"
        syncing.customer(client_id)
        syncing.use(client_id, 5, sku="search")
    syncing.planner().plan()
    syncing.planned("other", 7)

    report = syncing.pusher().push(most=3)

    assert (report.sent, len(report.refused), report.more) == (1, 1, False)
    with pytest.raises(Fatal, match=SEARCHES):
        syncing.pusher().push(most=3)


def test_given_a_wrong_meter_then_nothing_is_counted_wrongly(
    syncing: Syncing, stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient
) -> None:
    """A meter that counts events instead of adding them up takes none."""
    searches(stripe_client, default_aggregation={"formula": "count"})
    made = both(syncing, "acme")

    report = syncing.pusher().push(most=100)

    assert (report.sent, len(report.refused)) == (1, 1)
    assert "formula" in report.refused[0]
    assert stripe_sandbox.total(made, METER) == 7
    assert [event["event_name"] for event in stripe_sandbox.events()] == [METER]


def test_given_a_meter_that_is_taken_out_of_use_midway_then_its_increments_wait_and_none_is_rejected(
    syncing: Syncing, stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient
) -> None:
    """Stripe's refusal is the meter's: its increments are as good as before."""
    meter_id = searches(stripe_client)
    customers = [both(syncing, client_id) for client_id in ("acme", "berry")]

    class Closing(Gateway):
        """Another person takes the meter out of use, right before the first event for it."""

        def send(self, payload: Payload, *, idempotency_key: str) -> Reply:
            if payload.event_name == SEARCHES and not closed:
                closed.append(meter_id)
                stripe_client.v1.billing.meters.deactivate(meter_id)
            return super().send(payload, idempotency_key=idempotency_key)

    closed: list[str] = []
    report = syncing.pusher(lambda: Closing(syncing.settings)).push(most=100)

    assert (report.sent, report.rejected, report.stopped, len(report.refused)) == (2, 0, None, 1)
    assert [stripe_sandbox.total(made, METER) for made in customers] == [7, 7]
    assert syncing.states() == {"sent": 2, "pending": 2}
    stripe_client.v1.billing.meters.reactivate(meter_id)
    assert syncing.pusher().push(most=100).sent == 2
    assert [stripe_sandbox.total(made, SEARCHES) for made in customers] == [5, 5]


def test_given_a_meter_whose_sums_are_gone_then_the_others_are_confirmed(
    syncing: Syncing, stripe_client: stripe.StripeClient
) -> None:
    """L10: also where more waits for them than one run looks at."""
    meter_id = searches(stripe_client)
    for client_id in ("acme", "berry", "corner"):
        both(syncing, client_id)
    assert syncing.pusher().push(most=100).sent == 6
    stripe_client.v1.billing.meters.deactivate(meter_id)

    report = syncing.confirmer().confirm(most=3)

    assert (report.confirmed, len(report.refused)) == (3, 1)
    assert syncing.states() == {"confirmed": 3, "sent": 3}
    with pytest.raises(Fatal, match=SEARCHES):
        syncing.confirmer().confirm()


def test_given_one_client_then_only_its_usage_is_sent(syncing: Syncing, stripe_client: stripe.StripeClient) -> None:
    """A flush before a price change is about one client."""
    searches(stripe_client)
    for client_id in ("acme", "berry"):
        both(syncing, client_id)

    assert syncing.pusher().push(most=100, client_id="berry").sent == 2

    rows = syncing.read("SELECT client_id, state FROM stripe_increment ORDER BY 1, 2")
    assert [tuple(row) for row in rows] == [("acme", "pending")] * 2 + [("berry", "sent")] * 2
