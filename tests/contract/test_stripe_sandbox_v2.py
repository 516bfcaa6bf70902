"""Meter events of v2 in the stand-in, through the real SDK: codes instead of sentences, keys that keep successes."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from billing.sinks.stripe.sandbox import times
from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.contract.metering import DAY, NOON, Send

EVENTS_V2 = "/v2/billing/meter_events"


@pytest.fixture(autouse=True)
def _noon(stripe_sandbox: SandboxControl) -> None:
    """Stop the clock."""
    stripe_sandbox.set_time(NOON)


def send_v2(client: stripe.StripeClient, customer: str, value: str = "5", *, key: str = "", **more: Any) -> Any:
    """Send one event of v2."""
    params: Any = {
        "event_name": "credits",
        "payload": {"value": value, "stripe_customer_id": customer},
        **more,
    }
    return client.v2.billing.meter_events.create(params, {"idempotency_key": key} if key else {})


def code_of(caught: pytest.ExceptionInfo[stripe.StripeError]) -> object:
    """Return status and code."""
    return caught.value.http_status, caught.value.code


def test_whether_v1_and_v2_share_identifiers_is_a_knob(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, send: Send, customer: str
) -> None:
    """Assumed: they do. Nothing may rest on it."""
    stripe_sandbox.knobs(v2_identifiers="own")
    send("i1")
    send_v2(stripe_client, customer, identifier="i1")
    assert stripe_sandbox.total(customer, "credits") == 10
    with pytest.raises(stripe.InvalidRequestError, match="already exists"):
        send("i1")
    with pytest.raises(stripe.InvalidRequestError, match="already exists"):
        send_v2(stripe_client, customer, identifier="i1")


def test_an_event_of_v2_counts_as_one_of_v1_does(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, send: Send, customer: str
) -> None:
    """Instants instead of seconds; identifiers are unique in both together."""
    at = times.written(NOON - 60)
    made = send_v2(stripe_client, customer, "7", identifier="i1", timestamp=at)
    assert (made.identifier, made.timestamp, made.created) == ("i1", at, times.written(NOON))
    assert stripe_sandbox.events()[0]["timestamp"] == NOON - 60
    assert stripe_sandbox.total(customer, "credits") == 7
    with pytest.raises(stripe.InvalidRequestError, match="already exists"):
        send("i1")
    with pytest.raises(stripe.InvalidRequestError) as caught:
        send_v2(stripe_client, customer, identifier="i1")
    assert code_of(caught) == (400, "duplicate_meter_event")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"payload": {"value": "-5", "stripe_customer_id": "cus_1"}}, "payload_invalid_value"),
        ({"payload": {"value": "0", "stripe_customer_id": "cus_1"}}, "payload_invalid_value"),
        ({"payload": {"value": "1.5", "stripe_customer_id": "cus_1"}}, "payload_invalid_value"),
        ({"payload": {"value": "5"}}, "payload_no_customer_defined"),
        ({"payload": {"stripe_customer_id": "cus_1"}}, "payload_no_value_defined"),
        ({"event_name": "nothing"}, "no_meter"),
        ({"timestamp": times.written(NOON - 35 * DAY - 1)}, "timestamp_too_far_in_past"),
        ({"timestamp": times.written(NOON + 301)}, "timestamp_in_future"),
        ({"timestamp": "yesterday"}, "invalid_timestamp"),
        ({"colour": "red"}, "parameter_unknown"),
    ],
)
def test_a_refusal_of_v2_has_a_code_and_no_type(
    stripe_sandbox: SandboxControl,
    stripe_client: stripe.StripeClient,
    meter: str,
    customer: str,
    *,
    change: dict[str, Any],
    code: str,
) -> None:
    """The codes are in Stripe's OpenAPI description; the SDK makes InvalidRequestError of all of them."""
    assert meter
    with pytest.raises(stripe.InvalidRequestError) as caught:
        send_v2(stripe_client, customer, **change)
    assert code_of(caught) == (400, code)
    assert caught.value.json_body is not None
    assert caught.value.json_body["error"].keys() == {"code", "message"}  # type: ignore[index]
    assert stripe_sandbox.state()["events"] == 0


def test_an_archived_meter_has_a_code_of_its_own(stripe_client: stripe.StripeClient, meter: str, customer: str) -> None:
    """In v2 alone."""
    stripe_client.v1.billing.meters.deactivate(meter)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        send_v2(stripe_client, customer)
    assert code_of(caught) == (400, "archived_meter")


def test_a_key_of_v2_does_not_repeat_a_success_and_executes_a_failure_again(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, meter: str, customer: str
) -> None:
    """Documented: for 30 days. A 500 is not kept: executed again, it finds its own event."""
    assert meter
    first = send_v2(stripe_client, customer, key="k1", identifier="i1")
    stripe_sandbox.advance(30 * DAY - 1)
    again = send_v2(stripe_client, customer, key="k1", identifier="i1")
    assert again.created == first.created
    stripe_sandbox.advance(1)
    send_v2(stripe_client, customer, key="k1", identifier="i1")
    assert stripe_sandbox.total(customer, "credits") == 10  # the key and the identifier were both forgotten

    for kind, code in (("error", None), ("commit_then_error", "duplicate_meter_event")):
        stripe_sandbox.fault(kind, path=EVENTS_V2)
        with pytest.raises(stripe.APIError) as failed:
            send_v2(stripe_client, customer, key=kind, identifier=kind)
        assert failed.value.http_status == 500
        if code is None:
            send_v2(stripe_client, customer, key=kind, identifier=kind)
        else:
            with pytest.raises(stripe.InvalidRequestError) as caught:
                send_v2(stripe_client, customer, key=kind, identifier=kind)
            assert caught.value.code == code
    assert stripe_sandbox.total(customer, "credits") == 20


def test_a_key_of_v2_is_of_one_request_and_not_of_v1(
    stripe_client: stripe.StripeClient, send: Send, customer: str
) -> None:
    """Each API has its own keys; other content under one is an idempotency error."""
    send("i1", key="k")
    send_v2(stripe_client, customer, key="k", identifier="i2")
    with pytest.raises(stripe.IdempotencyError):
        send_v2(stripe_client, customer, "6", key="k", identifier="i2")


def test_an_adjustment_of_v2_cancels_as_one_of_v1_does(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, send: Send, customer: str
) -> None:
    """Events of both; a refusal has a code."""
    send("i1")
    send_v2(stripe_client, customer, identifier="i2")

    def cancel(identifier: str) -> str:
        params: Any = {"type": "cancel", "event_name": "credits", "cancel": {"identifier": identifier}}
        return str(stripe_client.v2.billing.meter_event_adjustments.create(params).status)

    assert [cancel("i1"), cancel("i2")] == ["pending", "pending"]
    stripe_sandbox.advance(60)
    assert stripe_sandbox.total(customer, "credits") == 0
    with pytest.raises(stripe.InvalidRequestError) as caught:
        cancel("nothing")
    assert code_of(caught) == (400, "resource_missing")


def test_a_rate_limit_of_v2_is_the_sdk_s(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, meter: str, customer: str
) -> None:
    """429, nothing executed."""
    assert meter
    stripe_sandbox.fault("rate_limit", path="/v2/*", customer=customer)
    with pytest.raises(stripe.RateLimitError):
        send_v2(stripe_client, customer)
    assert stripe_sandbox.state()["events"] == 0
