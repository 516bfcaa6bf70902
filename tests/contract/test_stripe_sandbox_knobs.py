"""What the stand-in leaves open as Stripe does is a knob: each is turned, and seen through the real SDK."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import stripe

from billing.core.errors import Rejected
from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.contract.metering import DAY, HOUR, NOON, Send, make_meter, values
from tests.waiting import wait_until


@pytest.mark.parametrize("after_window", ["before", "after"])
def test_an_identifier_is_unique_within_a_rolling_day(
    stripe_sandbox: SandboxControl, send: Send, customer: str, after_window: str
) -> None:
    """Documented: at least 24 hours. What comes later is not: by default it then counts again."""
    stripe_sandbox.set_time(NOON)
    send()
    stripe_sandbox.advance(DAY - 1 if after_window == "before" else DAY)
    if after_window == "before":
        with pytest.raises(stripe.InvalidRequestError):
            send()
    else:
        send()
        stripe_sandbox.knobs(identifier_window_seconds=36 * HOUR)
        with pytest.raises(stripe.InvalidRequestError):
            send()
    assert stripe_sandbox.total(customer, "credits") == (5 if after_window == "before" else 10)


def test_a_key_is_kept_for_a_day(stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient) -> None:
    """Documented: at least 24 hours; the window is a knob."""
    stripe_sandbox.set_time(NOON)
    create = stripe_client.v1.customers.create
    first = create({}, {"idempotency_key": "k"}).id
    stripe_sandbox.advance(DAY - 1)
    assert create({}, {"idempotency_key": "k"}).id == first
    stripe_sandbox.advance(1)
    assert create({}, {"idempotency_key": "k"}).id != first


def test_a_duplicate_is_saved_under_its_key_unless_the_knob_says_otherwise(
    stripe_sandbox: SandboxControl, send: Send
) -> None:
    """Assumed: the refusal is part of the execution."""
    stripe_sandbox.set_time(NOON)
    send(key="k1")
    for expected in ("true", None):
        stripe_sandbox.knobs(save_refusals=expected is not None)
        key = f"k-{expected}"
        for _ in range(2):
            with pytest.raises(stripe.InvalidRequestError) as caught:
                send(key=key)
        assert (caught.value.headers or {}).get("idempotent-replayed") == expected


def test_the_timestamp_s_bounds_are_exact(stripe_sandbox: SandboxControl, send: Send) -> None:
    """35 days and five minutes, to the second, of the stand-in's own time."""
    stripe_sandbox.set_time(NOON)
    send("old", timestamp=NOON - 35 * DAY)
    send("new", timestamp=NOON + 300)
    with pytest.raises(stripe.InvalidRequestError, match=f"greater than or equal to {NOON - 35 * DAY}[.]"):
        send("older", timestamp=NOON - 35 * DAY - 1)
    with pytest.raises(stripe.InvalidRequestError):
        send("newer", timestamp=NOON + 301)


def test_an_unknown_customer_is_dropped_later_or_refused_now(
    stripe_sandbox: SandboxControl, send: Send, stripe_client: stripe.StripeClient, customer: str
) -> None:
    """Documented: 200, and an error afterwards. Whether some are refused at once is a knob; so for a deleted one."""
    send("i1", customer="cus_nobody")
    stripe_client.v1.customers.delete(customer)
    send("i2")
    assert stripe_sandbox.state()["dropped"] == {"meter_event_customer_not_found": 2}
    assert stripe_sandbox.state()["totals"] == {}

    stripe_sandbox.knobs(unknown_customer="refuse", deleted_customer="refuse")
    for identifier, who in (("i3", "cus_nobody"), ("i4", customer)):
        with pytest.raises(stripe.InvalidRequestError, match=f"No such customer: '{who}'") as caught:
            send(identifier, customer=who)
        assert caught.value.code == "resource_missing"
    assert stripe_sandbox.state()["events"] == 2


def test_summaries_lag_as_the_knob_says(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, send: Send, meter: str, customer: str
) -> None:
    """Documented: eventually consistent. The lag counts from the receipt; totals of the control side know at once."""
    stripe_sandbox.set_time(NOON + 45)
    stripe_sandbox.knobs(summary_lag_seconds=HOUR)
    send(timestamp=NOON + 30)
    stripe_sandbox.advance(HOUR - 1)
    assert values(stripe_client, meter, customer, NOON, NOON + 60) == [0.0]
    assert stripe_sandbox.total(customer, "credits") == 5
    stripe_sandbox.advance(1)
    assert values(stripe_client, meter, customer, NOON, NOON + 60) == [5.0]


def test_the_end_of_a_summary_is_exclusive_or_as_the_knob_says(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, send: Send, meter: str, customer: str
) -> None:
    """Stripe's texts disagree; `start_time` is inclusive in all of them."""
    stripe_sandbox.set_time(NOON + HOUR)
    send("start", timestamp=NOON, value="1")
    send("end", timestamp=NOON + 60, value="10")
    assert values(stripe_client, meter, customer, NOON, NOON + 60) == [1.0]
    stripe_sandbox.knobs(end_time_inclusive=True)
    assert values(stripe_client, meter, customer, NOON, NOON + 60) == [11.0]


def test_empty_windows_and_their_order_are_knobs(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, send: Send, meter: str, customer: str
) -> None:
    """Nothing may rest on whether an hour without usage has a summary, or on which one comes first."""
    stripe_sandbox.set_time(NOON + 3 * HOUR)
    send("a", timestamp=NOON + 1, value="1")
    send("b", timestamp=NOON + 2 * HOUR, value="2")

    def grouped() -> list[float]:
        return values(stripe_client, meter, customer, NOON, NOON + 3 * HOUR, value_grouping_window="hour")

    assert grouped() == [2.0, 0.0, 1.0]
    stripe_sandbox.knobs(summaries_newest_first=False, empty_summaries="absent")
    assert grouped() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 60.0),
        ({"default_aggregation": {"formula": "count"}}, 3.0),
        ({"default_aggregation": {"formula": "last"}}, 20.0),
        ({"event_time_window": "hour"}, 50.0),  # in the first hour the event that was received last counts alone
        ({"event_time_window": "day"}, 30.0),
    ],
)
def test_a_meter_aggregates_as_it_was_made(
    stripe_sandbox: SandboxControl,
    stripe_client: stripe.StripeClient,
    customer: str,
    settings: dict[str, Any],
    expected: float,
) -> None:
    """Sum, count, last; on a pre-aggregated meter the latest receipt per window overwrites."""
    day = NOON // DAY * DAY
    meter = make_meter(stripe_client, **settings).id
    stripe_sandbox.set_time(day + 5 * HOUR)
    for offset, value in ((60, "10"), (2 * HOUR, "20"), (30, "30")):
        payload = {"value": value, "stripe_customer_id": customer}
        params: Any = {"event_name": "credits", "payload": payload, "timestamp": day + offset}
        stripe_client.v1.billing.meter_events.create(params)
    assert values(stripe_client, meter, customer, day, day + DAY) == [expected]


def test_decimals_and_a_rate_are_knobs(stripe_sandbox: SandboxControl, send: Send, customer: str) -> None:
    """Stripe's documents disagree on decimals; its rate in a sandbox is 25 a second, off here unless asked for."""
    with pytest.raises(stripe.InvalidRequestError, match="whole number"):
        send(value="1.5")
    stripe_sandbox.knobs(decimals=True)
    send(value="1.5")
    assert stripe_sandbox.state()["totals"] == {customer: {"credits": 1.5}}

    stripe_sandbox.knobs(calls_per_second=1)

    def refused() -> bool:
        try:
            send()
        except stripe.RateLimitError:
            return True
        except stripe.InvalidRequestError:
            return False
        return False

    wait_until(refused, "a second call within one second")


@pytest.mark.parametrize("where", ["account", "meter"])
def test_the_scope_of_an_identifier_is_a_knob(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, send: Send, customer: str, where: str
) -> None:
    """Treated as of the whole account, unless it is turned."""
    make_meter(stripe_client, event_name="bytes")
    stripe_sandbox.knobs(identifier_scope=where)
    send()
    if where == "account":
        with pytest.raises(stripe.InvalidRequestError):
            send(event_name="bytes")
    else:
        send(event_name="bytes")
    assert stripe_sandbox.total(customer, "bytes") == (0 if where == "account" else 5)


def test_the_order_of_checks_is_a_knob(stripe_sandbox: SandboxControl, send: Send) -> None:
    """A duplicate with a bad timestamp: which of both is said is not documented."""
    stripe_sandbox.set_time(NOON)
    send()
    with pytest.raises(stripe.InvalidRequestError, match="35 days"):
        send(timestamp=0)
    stripe_sandbox.knobs(duplicate_first=True)
    with pytest.raises(stripe.InvalidRequestError, match="already exists"):
        send(timestamp=0)


def test_one_active_meter_per_event_name_is_a_knob(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, meter: str
) -> None:
    """Refused, unless it is turned or the first one is inactive."""
    with pytest.raises(stripe.InvalidRequestError):
        make_meter(stripe_client)
    stripe_sandbox.knobs(event_name_taken="accept")
    make_meter(stripe_client)
    stripe_sandbox.knobs(event_name_taken="refuse")
    for one in stripe_client.v1.billing.meters.list().data:
        stripe_client.v1.billing.meters.deactivate(one.id)
    assert make_meter(stripe_client).id != meter


@pytest.mark.parametrize(
    ("what", "line"),
    [
        (lambda control: control.knobs(colour=1), "knobs: 'colour': must be one of"),
        (lambda control: control.knobs(decimals="yes"), "decimals: 'yes': must be true or false"),
        (
            lambda control: control.knobs(summary_lag_seconds=-1),
            "summary_lag_seconds: -1: must be a whole number from 0",
        ),
        (
            lambda control: control.knobs(unknown_customer="ask"),
            "unknown_customer: 'ask': must be one of: drop, refuse",
        ),
        (lambda control: control.fault("explode"), "kind: 'explode': must be one of: drop, hang"),
        (lambda control: control.fault("drop", count=0), "count: 0: must be a whole number from 1"),
        (lambda control: control.fault("slow", seconds=61), "seconds: 61: must be a number from 0 to 60"),
        (lambda control: control.fault("drop", when=1), "fault: 'when': must be one of"),
        (lambda control: control.advance(10**12), "advance_seconds: 1000000000000: must be a whole number"),
        (
            lambda control: control._call("POST", "clock", {"frozen_at": 5, "offset_seconds": "x"}),
            "offset_seconds: 'x': must be a whole number",
        ),
    ],
)
def test_a_wrong_control_request_is_refused_with_one_line(
    stripe_sandbox: SandboxControl, what: Callable[[SandboxControl], None], line: str
) -> None:
    """A test that turns a knob which is not there must not pass."""
    before = stripe_sandbox.state()
    with pytest.raises(Rejected) as caught:
        what(stripe_sandbox)
    assert line in str(caught.value)
    after = stripe_sandbox.state()
    assert (after["knobs"], after["frozen_at"], after["offset_seconds"]) == (before["knobs"], None, 0)
    assert stripe_sandbox.state()["faults"] == []
