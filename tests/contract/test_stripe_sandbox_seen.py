"""What a test sees of the stand-in: the last requests, what was billed, summaries as they come."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from billing.core.errors import Rejected
from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.contract.billed_account import JUNE, Account
from tests.contract.metering import DAY, EVENTS, HOUR, NOON, Send, values


@pytest.fixture(autouse=True)
def _noon(stripe_sandbox: SandboxControl) -> None:
    """Stop the clock."""
    stripe_sandbox.set_time(NOON)


def test_the_last_requests_can_be_read(stripe_sandbox: SandboxControl, send: Send, customer: str) -> None:
    """Method, path, status, keys and names, and which fault struck; nothing of the caller's secret key."""
    before = len(stripe_sandbox.requests())
    send("i1", key="k1")
    stripe_sandbox.fault("commit_then_close", path=EVENTS)
    stripe_sandbox.fault("drop", path=EVENTS)
    for number in (2, 3):
        with pytest.raises(stripe.APIConnectionError):
            send(f"i{number}", key=f"k{number}")
    first, second, third = stripe_sandbox.requests()[before:]
    event = {
        "method": "POST",
        "path": EVENTS,
        "status": 200,
        "idempotency_key": "k1",
        "identifier": "i1",
        "customer": customer,
        "event_name": "credits",
        "at": NOON,
        "fault": None,
    }
    assert first == event
    assert second == {**event, "idempotency_key": "k2", "identifier": "i2", "fault": "commit_then_close"}
    assert third == {**event, "status": None, "idempotency_key": "k3", "identifier": "i3", "fault": "drop"}
    assert "sk_test" not in str(stripe_sandbox.requests())


def test_what_was_billed_is_on_final_invoices_and_in_invoice_items(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, send: Send, meter: str, customer: str
) -> None:
    """A draft is no bill yet; an item counts once, whether it waits or is on an invoice."""
    account = Account(stripe_sandbox, stripe_client, send, meter, customer)
    stripe_sandbox.set_time(JUNE)
    account.use(5, JUNE - 60)
    assert stripe_sandbox.billed(customer, "credits") == 0
    stripe_sandbox.set_time(JUNE + HOUR)
    assert stripe_sandbox.billed(customer, "credits") == 5
    item: dict[str, Any] = {"customer": customer, "currency": "eur", "quantity": 20, "unit_amount_decimal": "0.5"}
    for metadata in ({"event_name": "credits"}, {"event_name": "bytes"}):
        stripe_client.v1.invoice_items.create({**item, "metadata": metadata})  # type: ignore[arg-type]
    assert stripe_sandbox.billed(customer, "credits") == 25
    stripe_sandbox.set_time(JUNE + 40 * DAY)
    assert (stripe_sandbox.billed(customer, "credits"), stripe_sandbox.billed(customer, "bytes")) == (25, 20)
    with pytest.raises(Rejected):
        stripe_sandbox._call("GET", "billed?customer=x")


def test_summaries_show_events_in_any_order_when_the_knob_says_so(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, send: Send, meter: str, customer: str
) -> None:
    """Eventual consistency: what came first is not seen first; after lag and spread all is."""
    stripe_sandbox.knobs(summary_lag_seconds=HOUR, summary_lag_spread_seconds=HOUR)
    for number in range(8):
        send(f"i{number}", value=str(2**number))
    stripe_sandbox.set_time(NOON + HOUR)
    seen = []
    for _ in range(60):
        (total,) = values(stripe_client, meter, customer, NOON, NOON + 60)
        seen.append(int(total))
        stripe_sandbox.advance(60)
    assert len(set(seen)) > 4
    assert any(total & (total + 1) for total in seen), "some later event was seen before an earlier one"
    stripe_sandbox.set_time(NOON + 2 * HOUR)
    assert values(stripe_client, meter, customer, NOON, NOON + 60) == [255.0]
