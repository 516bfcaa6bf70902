"""Stripe as a sink, through the real SDK: what is sent once, what shows, what is taken back, what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import stripe

from billing.core.errors import Fatal, InvalidValue
from billing.core.settings import Settings
from billing.sinks.sink import Answer
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.contract.metering import make_meter
from tests.contract.stripe_accounts import DAY, HOUR, JUNE, MAY, METER, MINUTE, Account


@pytest.fixture
def account(stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient) -> Account:
    """Make an account, in the middle of May."""
    made = Account(stripe_sandbox, stripe_client)
    made.at(MAY + 10 * DAY)
    return made


def items(account: Account) -> list[stripe.InvoiceItem]:
    """Return the customer's invoice items."""
    return list(account.client.v1.invoice_items.list({"customer": account.customer}).data)


def test_an_event_is_taken_once_and_shows_in_its_own_minute(account: Account) -> None:
    """The second attempt under another key is a duplicate, which is no error."""
    payload = account.payload(units=7)
    with account.gateway() as gateway:
        gateway.check(METER)
        assert gateway.shown(payload) == 0
        assert gateway.send(payload, idempotency_key="b1-a#1").answer is Answer.TAKEN
        assert gateway.send(payload, idempotency_key="b1-a#2").answer is Answer.DUPLICATE
        assert gateway.send(account.payload("b1-b", 5, event_at=MAY + 2 * DAY), idempotency_key="b").http_status == 200
        assert gateway.shown(payload) == 7
        assert gateway.total(account.customer, METER, MAY, JUNE) == 12
        with pytest.raises(InvalidValue, match="whole minutes"):
            gateway.total(account.customer, METER, MAY, payload.event_at)


def test_an_invoice_item_is_made_once_whatever_the_attempts(account: Account) -> None:
    """L8: each attempt has a key of its own on record, and Stripe sees one: of a lost answer there is one item."""
    account.at(JUNE + DAY)
    late = account.late(units=7)
    account.control.fault("commit_then_close", path="/v1/invoiceitems", method="POST")
    with account.gateway() as gateway:
        assert gateway.shown(late) == 0
        answers = [gateway.send(late, idempotency_key=f"b1-late#{attempt}").answer for attempt in (1, 2, 3)]
        assert gateway.send(account.late("b1-other", 5), idempotency_key="b1-other#1").answer is Answer.TAKEN

        assert answers == [Answer.UNKNOWN, Answer.TAKEN, Answer.TAKEN]
        assert (gateway.shown(late), gateway.shown(account.late("b1-other"))) == (7, 5)
    item = items(account)[1]
    assert (item.quantity, item.currency, item.amount) == (7, "eur", 4)
    assert (item.period.start, item.period.end) == (int(MAY.timestamp()), int(JUNE.timestamp()))
    assert item.metadata is not None
    assert item.metadata.to_dict() == {"billing_identifier": "b1-late"}
    assert item.description == "7 units of credits, used from 2026-05-01 to 2026-06-01"


def test_an_invoice_item_costs_what_the_customer_pays(account: Account) -> None:
    """The price is the subscription's; without one the meter's only one; with several it is refused."""
    other = account.new_customer()
    with account.gateway() as gateway:
        assert gateway.send(account.late(customer=other), idempotency_key="a").answer is Answer.TAKEN
        params = {"product": account.client.v1.products.list().data[0].id, "currency": "eur", "unit_amount": 3}
        account.client.v1.prices.create(
            {**params, "recurring": {"interval": "month", "usage_type": "metered", "meter": account.meter}}  # type: ignore[typeddict-item]
        )

        refused = gateway.send(account.late("b1-x", customer=other), idempotency_key="b")
        subscribed = gateway.send(account.late("b1-y", units=10), idempotency_key="c")

    assert (refused.answer, subscribed.answer) == (Answer.REFUSED, Answer.TAKEN)
    assert refused.reason == f"meter 'credits': has 2 prices, and {other} is subscribed to none of them"
    assert items(account)[0].amount == 5


def test_an_invoice_item_that_was_not_asked_for_was_not_executed(account: Account) -> None:
    """What fails before the call leaves no doubt, so that the increment stays pending."""
    account.control.fault("unavailable", path="/v1/subscriptions", method="GET", count=3)
    with account.gateway() as gateway:
        assert gateway.send(account.late(), idempotency_key="a").answer is Answer.UNREACHED
    assert items(account) == []


def test_an_event_is_withdrawn_by_its_identifier(account: Account) -> None:
    payload = account.payload()
    with account.gateway() as gateway:
        assert gateway.send(payload, idempotency_key="b1-a#1").answer is Answer.TAKEN
        account.at(MAY + 10 * DAY + HOUR)

        assert gateway.withdraw(payload, idempotency_key="b1-a#w").answer is Answer.TAKEN
        account.at(MAY + 11 * DAY)
        assert gateway.shown(payload) == 0
        never = gateway.withdraw(account.payload("b1-never"), idempotency_key="b1-never#w")
        assert never.answer is Answer.REFUSED
        assert gateway.withdraw(account.late(), idempotency_key="x").answer is Answer.REFUSED


@pytest.mark.parametrize("listed", [True, False])
def test_what_stripe_dropped_is_reported_with_the_key_of_its_attempt(account: Account, listed: bool) -> None:  # noqa: FBT001 - a case
    """Given a customer that was deleted, then the event is taken, and a report names the attempt's key.

    Whether a listed event has its data, or must be fetched for it, is not documented.
    """
    account.control.knobs(listed_event_data=listed)
    account.client.v1.customers.delete(account.customer)
    payload = account.payload()
    with account.gateway() as gateway:
        since = MAY + 10 * DAY - MINUTE
        assert list(gateway.error_reports(since)) == []
        assert gateway.send(payload, idempotency_key="b1-a#1").answer is Answer.TAKEN
        account.at(MAY + 10 * DAY + HOUR)

        (report,) = gateway.error_reports(since)
        assert (report.event_name, report.code, report.count) == (METER, "meter_event_customer_not_found", 1)
        assert report.samples == ("b1-a#1",)
        assert report.window_start <= MAY + 10 * DAY <= report.window_end
        assert list(gateway.error_reports(MAY + 10 * DAY + 2 * HOUR)) == []


def test_a_report_is_fetched_when_it_is_asked_for(account: Account) -> None:
    """L9. Given two reports whose list leaves their data out, then who takes one has made one call for it."""
    account.client.v1.customers.delete(account.customer)
    with account.gateway() as gateway:
        for minute, name in enumerate(("b1-a", "b1-b")):
            account.at(MAY + 10 * DAY + minute * MINUTE)
            assert gateway.send(account.payload(name), idempotency_key=f"{name}#1").answer is Answer.TAKEN
        account.at(MAY + 10 * DAY + HOUR)

        reports = gateway.error_reports(MAY + 10 * DAY - MINUTE)
        assert next(reports).samples == ("b1-a#1",)
        fetched = [one for one in account.control.requests() if one["path"].startswith("/v2/core/events/")]
        assert len(fetched) == 1
        assert next(reports).samples == ("b1-b#1",)


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"default_aggregation": {"formula": "last"}}, "formula 'sum', has 'last'"),
        ({"event_time_window": "day"}, "event_time_window None, has 'day'"),
        ({"value_settings": {"event_payload_key": "tokens"}}, "value key 'value', has 'tokens'"),
        (
            {"customer_mapping": {"event_payload_key": "who", "type": "by_id"}},
            "customer key 'stripe_customer_id', has 'who'",
        ),
    ],
)
def test_a_meter_that_counts_otherwise_is_one_line(account: Account, wrong: dict[str, object], rule: str) -> None:
    make_meter(account.client, event_name="odd", **wrong)
    with account.gateway() as gateway, pytest.raises(Fatal) as raised:
        gateway.check("odd")
    assert str(raised.value) == (
        f"billing_stripe_meter: 'odd': must be a meter with {rule}: name another in billing_stripe_meter"
    )


def test_a_meter_that_is_not_there_is_one_line(account: Account) -> None:
    with account.gateway() as gateway, pytest.raises(Fatal, match="'nowhere': is no active meter at Stripe"):
        gateway.check("nowhere")


def test_a_live_key_needs_to_be_allowed_whoever_made_the_settings() -> None:
    """Given settings that did not come from a file, then a live key is refused before anything is called."""
    with pytest.raises(InvalidValue, match="billing_stripe_live") as raised:
        Gateway(Settings(stripe_api_key="sk_live_hunter2hunter2"))
    assert "hunter2" not in str(raised.value)
    with Gateway(Settings(stripe_api_key="sk_live_hunter2hunter2", stripe_live=True)) as gateway:
        assert gateway.where == "api.stripe.com"


def test_another_transport_takes_the_sdks_requests(account: Account) -> None:
    """The simulation needs no socket: what the SDK would send goes to a client that is given."""
    seen: list[tuple[str, str]] = []

    class Transport(stripe.HTTPClient):
        name = "in-process"

        def request(
            self, method: str, url: str, headers: Any, post_data: Any = None, *, _usage: Any = None
        ) -> tuple[str, int, Mapping[str, str]]:
            seen.append((method, url))
            return '{"error": {"message": "busy"}}', 429, {}

    with Gateway(account.settings, http_client=Transport(), retries=0) as gateway:
        assert gateway.send(account.payload(), idempotency_key="a").answer is Answer.BUSY
    assert seen == [("post", f"{account.settings.stripe_sandbox_url}/v1/billing/meter_events")]
