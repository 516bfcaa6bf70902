"""What the stand-in accepts and does not count: reports of errors, adjustments; and the events of v2."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from billing.core.errors import Rejected
from billing.sinks.stripe.sandbox import times
from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.contract.metering import DAY, EVENTS, HOUR, NOON, Send, values
from tests.contract.test_stripe_sandbox_invoices import JUNE, MAY, Account

REPORTED = "v1.billing.meter.error_report_triggered"
EVENTS_V2 = "/v2/billing/meter_events"


@pytest.fixture(autouse=True)
def _noon(stripe_sandbox: SandboxControl) -> None:
    """Stop the clock."""
    stripe_sandbox.set_time(NOON)


def reports(client: stripe.StripeClient, **params: Any) -> list[Any]:
    """List the events of reports and fetch each with its data."""
    listed: Any = client.v2.core.events.list(params)  # type: ignore[arg-type]
    return [client.v2.core.events.retrieve(one.id) for one in listed.auto_paging_iter()]


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


def test_what_was_answered_200_and_dropped_is_reported_by_its_idempotency_key(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, send: Send, meter: str, customer: str
) -> None:
    """Documented: the only name of the call in a report. The event never counted."""
    stripe_sandbox.fault("drop_later", path=EVENTS, code="meter_event_value_too_many_digits")
    assert send("i1", key="k1").identifier == "i1"
    send("i2", key="k2")
    assert reports(stripe_client) == []  # the window is still open
    stripe_sandbox.advance(10)

    (event,) = reports(stripe_client)
    (kind,) = event.data.reason.error_types
    assert (event.type, event.related_object.id, event.data.reason.error_count) == (REPORTED, meter, 1)
    assert (kind.code, kind.error_count) == ("meter_event_value_too_many_digits", 1)
    assert [sample.request.identifier for sample in kind.sample_errors] == ["k1"]
    assert (event.data.validation_start, event.data.validation_end) == (times.written(NOON), times.written(NOON + 10))
    assert stripe_sandbox.total(customer, "credits") == 5
    assert values(stripe_client, meter, customer, NOON, NOON + 60) == [5.0]
    with pytest.raises(stripe.InvalidRequestError):
        send("i1", key="k3")  # its identifier is spent


def test_a_report_names_samples_and_counts_all(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, send: Send
) -> None:
    """Documented: samples. Who waits for each of its keys waits for ever."""
    stripe_sandbox.knobs(error_samples_max=2)
    for number in range(5):
        send(f"i{number}", key=f"k{number}", customer="cus_nobody")
    stripe_sandbox.fault("drop_later", code="archived_meter")
    send("i5", key="k5")
    stripe_sandbox.advance(10)
    (event,) = reports(stripe_client)
    assert event.data.reason.error_count == 6
    counts = {one.code: (one.error_count, len(one.sample_errors)) for one in event.data.reason.error_types}
    assert counts == {"meter_event_customer_not_found": (5, 2), "archived_meter": (1, 1)}


def test_reports_are_of_a_meter_and_a_window_and_come_late(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, send: Send, meter: str
) -> None:
    """The delay is a knob; newest first; filtered by type, object and time; kept for 30 days."""
    stripe_sandbox.knobs(error_report_delay_seconds=HOUR, no_meter="drop")
    for number in range(3):
        send(f"i{number}", customer="cus_nobody")
        stripe_sandbox.advance(10)
    send("i3", event_name="nothing", key="k3")
    stripe_sandbox.set_time(NOON + 40 + HOUR - 1)

    def created(**params: Any) -> list[str]:
        return [event.created for event in reports(stripe_client, **params)]

    times_of = [times.written(NOON + 10 * number + HOUR) for number in (4, 3, 2, 1)]
    assert created() == times_of[1:]
    stripe_sandbox.advance(1)
    assert created() == times_of
    assert created(limit=1) == times_of  # one page for each
    assert created(object_id=meter) == times_of[1:]
    assert created(types=[REPORTED]) == times_of[1:]
    assert created(types=["v1.billing.meter.no_meter_found"]) == times_of[:1]
    assert created(created={"gte": times_of[2]}) == times_of[:3]
    assert created(created={"gt": times_of[2], "lte": times_of[1]}) == times_of[1:2]
    stripe_sandbox.set_time(NOON + 20 + HOUR + 30 * DAY)
    assert created() == times_of[:3]


@pytest.mark.parametrize("with_data", [False, True])
def test_whether_a_listed_event_has_its_data_is_a_knob(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, send: Send, *, with_data: bool
) -> None:
    """The SDK's types say that data are to be retrieved; who finds them in the list is not wrong."""
    stripe_sandbox.knobs(listed_event_data=with_data)
    send(customer="cus_nobody")
    stripe_sandbox.advance(10)
    (listed,) = stripe_client.v2.core.events.list({}).data
    assert ("data" in listed) is with_data
    assert "data" in stripe_client.v2.core.events.retrieve(listed.id)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        stripe_client.v2.core.events.retrieve("evt_test_nothing")
    assert caught.value.http_status == 404


def test_a_dropped_event_is_on_no_invoice(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, send: Send, meter: str, customer: str
) -> None:
    """A 200 is a receipt, not a bill."""
    account = Account(stripe_sandbox, stripe_client, send, meter, customer)
    stripe_sandbox.set_time(MAY + DAY)
    stripe_sandbox.fault("drop_later", path=EVENTS)
    account.use(100, MAY + HOUR)
    account.use(7, MAY + HOUR)
    stripe_sandbox.set_time(JUNE + HOUR)
    assert account.quantities() == [[7]]
    assert stripe_sandbox.billed(customer, "credits") == 7


def cancel(client: stripe.StripeClient, identifier: str) -> Any:
    """Cancel an event."""
    params: Any = {"type": "cancel", "event_name": "credits", "cancel": {"identifier": identifier}}
    return client.v1.billing.meter_event_adjustments.create(params)


def test_an_adjustment_cancels_one_event_once_it_is_complete(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, send: Send, meter: str, customer: str
) -> None:
    """It says `pending`; the event counts until the clock has completed it, and its identifier stays used."""
    send("i1", value="3")
    send("i2", value="4")
    assert cancel(stripe_client, "i1").status == "pending"
    stripe_sandbox.advance(59)
    assert values(stripe_client, meter, customer, NOON, NOON + 60) == [7.0]
    stripe_sandbox.advance(1)
    assert values(stripe_client, meter, customer, NOON, NOON + 60) == [4.0]
    assert stripe_sandbox.total(customer, "credits") == 4
    with pytest.raises(stripe.InvalidRequestError, match="already exists"):
        send("i1")
    stripe_sandbox.knobs(adjustment_seconds=0)
    assert cancel(stripe_client, "i2").status == "complete"


def test_an_adjustment_is_refused_after_24_hours_and_a_second_time(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, send: Send, customer: str
) -> None:
    """24 hours of the receipt, whatever the event's own time."""
    send("i1")
    send("i2")
    stripe_sandbox.advance(DAY - 1)
    cancel(stripe_client, "i1")
    for identifier in ("i1", "nothing", ""):
        with pytest.raises(stripe.InvalidRequestError):
            cancel(stripe_client, identifier)
    stripe_sandbox.advance(1)
    with pytest.raises(stripe.InvalidRequestError, match="24 hours"):
        cancel(stripe_client, "i2")
    stripe_sandbox.advance(60)
    assert stripe_sandbox.total(customer, "credits") == 5


def test_an_adjustment_does_not_change_a_final_invoice(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, send: Send, meter: str, customer: str
) -> None:
    """Documented. In the grace it does change the draft."""
    account = Account(stripe_sandbox, stripe_client, send, meter, customer)
    stripe_sandbox.set_time(JUNE + 60)
    account.use(5, JUNE - 60)
    account.use(7, JUNE - 60)
    cancel(stripe_client, "i1")
    stripe_sandbox.set_time(JUNE + HOUR)
    cancel(stripe_client, "i2")
    stripe_sandbox.advance(HOUR)
    assert account.quantities() == [[7]]


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


def test_a_rate_limit_of_v2_is_the_sdk_s(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, meter: str, customer: str
) -> None:
    """429, nothing executed."""
    assert meter
    stripe_sandbox.fault("rate_limit", path="/v2/*", customer=customer)
    with pytest.raises(stripe.RateLimitError):
        send_v2(stripe_client, customer)
    assert stripe_sandbox.state()["events"] == 0


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


def test_the_last_requests_can_be_read(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, send: Send, customer: str
) -> None:
    """Method, path, status, keys and names, and which fault struck; nothing of the caller's secret key."""
    before = len(stripe_sandbox.requests())
    send("i1", key="k1")
    stripe_sandbox.fault("commit_then_close", path=EVENTS)
    stripe_sandbox.fault("drop", path="/v1/customers")
    with pytest.raises(stripe.APIConnectionError):
        send("i2", key="k2")
    with pytest.raises(stripe.APIConnectionError):
        stripe_client.v1.customers.list({"limit": 1})
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
    assert (third["path"], third["status"], third["fault"]) == ("/v1/customers", None, "drop")
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
