"""What the stand-in accepts and does not count: reports of errors, adjustments."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from billing.sinks.stripe.sandbox import times
from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.contract.billed_account import JUNE, MAY, Account
from tests.contract.metering import DAY, EVENTS, HOUR, NOON, Send, values

REPORTED = "v1.billing.meter.error_report_triggered"


@pytest.fixture(autouse=True)
def _noon(stripe_sandbox: SandboxControl) -> None:
    """Stop the clock."""
    stripe_sandbox.set_time(NOON)


def reports(client: stripe.StripeClient, **params: Any) -> list[Any]:
    """List the events of reports and fetch each with its data."""
    listed: Any = client.v2.core.events.list(params)  # type: ignore[arg-type]
    return [client.v2.core.events.retrieve(one.id) for one in listed.auto_paging_iter()]


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
    stripe_client.v1.customers.list({})  # no event: the fault waits for one
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


def test_what_an_adjustment_that_cannot_be_is_answered_is_a_knob(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, send: Send, customer: str
) -> None:
    """Assumed: it is refused. A 200 that does nothing is as likely, since adjustments are asynchronous."""
    send("i1")
    stripe_sandbox.knobs(wrong_adjustment="accept")
    assert cancel(stripe_client, "nothing").status == "pending"
    stripe_sandbox.advance(DAY)
    assert cancel(stripe_client, "i1").status == "pending"
    stripe_sandbox.advance(DAY)
    assert stripe_sandbox.total(customer, "credits") == 5


def test_whether_a_canceled_identifier_is_free_is_a_knob(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, send: Send, customer: str
) -> None:
    """Assumed: it stays used."""
    stripe_sandbox.knobs(canceled_identifier="free")
    send("i1")
    cancel(stripe_client, "i1")
    stripe_sandbox.advance(59)
    with pytest.raises(stripe.InvalidRequestError, match="already exists"):
        send("i1")
    stripe_sandbox.advance(1)
    send("i1", value="7")
    assert stripe_sandbox.total(customer, "credits") == 7


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
