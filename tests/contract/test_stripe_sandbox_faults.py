"""What the stand-in does wrong on request, what is in flight at the same time, and what its knobs turn.

Faults come over the socket, through the real SDK: a lost answer here is a lost answer at Stripe.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import stripe

from billing.core.errors import Rejected
from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.stripe_sandbox import sdk_client
from tests.waiting import wait_until

HOUR, DAY = 3_600, 86_400
NOON = 1_795_262_400  # a whole hour of UTC
EVENTS = "/v1/billing/meter_events"
Send = Callable[..., Any]


@pytest.fixture
def customer(stripe_client: stripe.StripeClient) -> str:
    """Make a customer."""
    return stripe_client.v1.customers.create({"name": "acme"}).id


@pytest.fixture
def meter(stripe_client: stripe.StripeClient) -> str:
    """Make the meter `credits`."""
    return str(make_meter(stripe_client).id)


@pytest.fixture
def send(stripe_client: stripe.StripeClient, meter: str, customer: str) -> Send:
    """Return what sends one event of 5 credits, in exactly one request."""
    assert meter

    def send_one(identifier: str = "i1", *, key: str | None = None, value: str = "5", **more: Any) -> Any:
        payload = {"value": value, "stripe_customer_id": more.pop("customer", customer)}
        params = {"event_name": "credits", "identifier": identifier, "payload": payload, **more}
        options: Any = {} if key is None else {"idempotency_key": key}
        return stripe_client.v1.billing.meter_events.create(params, options)  # type: ignore[arg-type]

    return send_one


@pytest.fixture
def background() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    """Yield threads for calls that are held up."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        yield pool


def make_meter(client: stripe.StripeClient, **more: Any) -> Any:
    """Make a meter; `sum` unless told otherwise."""
    params: Any = {
        "display_name": "Credits",
        "event_name": "credits",
        "default_aggregation": {"formula": "sum"},
        **more,
    }
    return client.v1.billing.meters.create(params)


def values(client: stripe.StripeClient, meter: str, customer: str, start: int, end: int, **more: Any) -> list[float]:
    """Return the aggregated values of summaries."""
    params: Any = {"customer": customer, "start_time": start, "end_time": end, **more}
    return [one.aggregated_value for one in client.v1.billing.meters.event_summaries.list(meter, params).data]


def status(error: pytest.ExceptionInfo[stripe.StripeError]) -> int | None:
    """Return the HTTP status that the SDK saw."""
    return error.value.http_status


@pytest.mark.parametrize(
    ("kind", "committed"),
    [
        ("drop", False),
        ("rate_limit", False),
        ("unavailable", False),
        ("error", False),
        ("commit_then_close", True),
        ("commit_then_error", True),
    ],
)
def test_a_fault_strikes_once_and_the_event_counts_once(
    stripe_sandbox: SandboxControl, send: Send, customer: str, kind: str, *, committed: bool
) -> None:
    """The same identifier under a fresh key: a duplicate if it was committed, else the first."""
    stripe_sandbox.fault(kind, path=EVENTS)
    with pytest.raises(stripe.StripeError):
        send(key="k1")
    assert stripe_sandbox.total(customer, "credits") == (5 if committed else 0)

    if committed:
        with pytest.raises(stripe.InvalidRequestError, match=r"An event already exists with identifier i1\.$"):
            send(key="k2")
    else:
        send(key="k2")
    assert stripe_sandbox.total(customer, "credits") == 5
    assert stripe_sandbox.state()["faults"] == []
    assert stripe_sandbox.state()["calls"][f"POST {EVENTS}"] == 2


@pytest.mark.parametrize("kind", ["error", "commit_then_error"])
def test_a_500_is_kept_under_its_key(stripe_sandbox: SandboxControl, send: Send, customer: str, kind: str) -> None:
    """Documented: the same key gives the 500 for ever, executed or not. Only a fresh key tells them apart."""
    stripe_sandbox.fault(kind, path=EVENTS)
    for _ in range(2):
        with pytest.raises(stripe.APIError) as caught:
            send(key="k1")
        assert status(caught) == 500
    assert (caught.value.headers or {})["idempotent-replayed"] == "true"
    assert stripe_sandbox.total(customer, "credits") == (5 if kind == "commit_then_error" else 0)


def test_a_lost_answer_is_replayed_under_its_key(stripe_sandbox: SandboxControl, send: Send, customer: str) -> None:
    """The answer was saved with the event: the same key gives it, and counts nothing."""
    stripe_sandbox.fault("commit_then_close", path=EVENTS)
    with pytest.raises(stripe.APIConnectionError):
        send(key="k1")
    assert send(key="k1").identifier == "i1"
    assert stripe_sandbox.total(customer, "credits") == 5


@pytest.mark.parametrize(("kind", "committed"), [("hang", 0), ("commit_then_hang", 5)])
def test_a_hanging_call_ends_with_the_caller_s_timeout(
    stripe_sandbox: SandboxControl, send: Send, customer: str, kind: str, committed: int
) -> None:
    """It does not hang for the next one."""
    impatient = stripe.RequestsClient(timeout=(60, 0.2))
    client = sdk_client(stripe_sandbox.url, impatient)
    stripe_sandbox.fault(kind, path=EVENTS)
    params: Any = {
        "event_name": "credits",
        "identifier": "i0",
        "payload": {"value": "5", "stripe_customer_id": customer},
    }
    with pytest.raises(stripe.APIConnectionError):
        client.v1.billing.meter_events.create(params)
    impatient.close()  # type: ignore[no-untyped-call]
    wait_until(lambda: stripe_sandbox.state()["faults"] == [], "the call has come")
    wait_until(lambda: stripe_sandbox.total(customer, "credits") == committed, "it was executed, or not")
    assert send().identifier == "i1"


@pytest.mark.parametrize(("should_retry", "requests"), [(None, 1), (True, 2), (False, 1)])
def test_a_429_is_retried_by_the_sdk_only_when_told_so(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, should_retry: object, requests: int
) -> None:
    """The header decides; nothing is saved under the key, so that the retry is executed."""
    stripe_sandbox.fault("rate_limit", path="/v1/customers", should_retry=should_retry)
    create = stripe_client.v1.customers.create
    if requests == 1:
        with pytest.raises(stripe.RateLimitError):
            create({}, {"max_network_retries": 1})
    else:
        create({}, {"max_network_retries": 1})
    assert stripe_sandbox.state()["calls"] == {"POST /v1/customers": requests}
    assert stripe_sandbox.state()["customers"] == requests - 1


def test_a_fault_finds_its_calls(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, send: Send, customer: str
) -> None:
    """By path, method and customer; `after` lets calls through, `count` says how often; others are not touched."""
    other = stripe_client.v1.customers.create({}).id
    stripe_sandbox.fault("unavailable", path=EVENTS, method="POST", customer=customer, after=1, count=2)
    seen = []
    for number in range(5):
        send(f"o{number}", customer=other)
        try:
            send(f"i{number}")
            seen.append(200)
        except stripe.StripeError as error:
            seen.append(error.http_status or 0)
    assert seen == [200, 503, 503, 200, 200]


def test_calls_for_one_customer_and_meter_do_not_overlap(
    stripe_sandbox: SandboxControl, send: Send, customer: str, background: concurrent.futures.ThreadPoolExecutor
) -> None:
    """The second is refused with 409 and leaves nothing; another customer is not held up."""
    stripe_sandbox.fault("slow", path=EVENTS, seconds=60)
    slow = background.submit(send, "i1", key="k1")
    wait_until(lambda: stripe_sandbox.state()["calls"].get(f"POST {EVENTS}") == 1, "the slow call has come")

    with pytest.raises(stripe.APIError) as caught:
        send("i2", key="k2")
    assert status(caught) == 409
    assert caught.value.error is not None
    assert caught.value.error.code == "too_many_concurrent_requests"
    send("i3", customer="cus_other")
    stripe_sandbox.knobs(one_call_per_customer_and_meter=False)
    send("i4")

    stripe_sandbox.clear_faults()
    assert slow.result().identifier == "i1"
    assert stripe_sandbox.total(customer, "credits") == 10
    assert send("i2", key="k2").identifier == "i2"  # the 409 was not saved


def test_a_key_in_flight_is_refused(
    stripe_sandbox: SandboxControl,
    stripe_client: stripe.StripeClient,
    background: concurrent.futures.ThreadPoolExecutor,
) -> None:
    """409, and afterwards the key gives the first call's answer."""
    stripe_sandbox.fault("slow", path="/v1/customers", seconds=60)
    create = stripe_client.v1.customers.create
    slow = background.submit(create, {"name": "a"}, {"idempotency_key": "k1"})
    wait_until(lambda: stripe_sandbox.state()["calls"].get("POST /v1/customers") == 1, "the slow call has come")

    with pytest.raises(stripe.APIError) as caught:
        create({"name": "a"}, {"idempotency_key": "k1"})
    assert status(caught) == 409

    stripe_sandbox.clear_faults()
    first = slow.result()
    assert create({"name": "a"}, {"idempotency_key": "k1"}).id == first.id
    assert stripe_sandbox.state()["customers"] == 1


def test_a_reset_forgets_a_call_that_is_held_up(
    stripe_sandbox: SandboxControl,
    stripe_client: stripe.StripeClient,
    background: concurrent.futures.ThreadPoolExecutor,
) -> None:
    """A call of one test never reaches the next one."""
    stripe_sandbox.fault("slow", path="/v1/customers", seconds=60)
    slow = background.submit(stripe_client.v1.customers.create, {})
    wait_until(lambda: stripe_sandbox.state()["calls"].get("POST /v1/customers") == 1, "the slow call has come")
    stripe_sandbox.reset()
    with pytest.raises(stripe.StripeError):
        slow.result()
    assert stripe_sandbox.state()["customers"] == 0


def test_many_callers_at_once_are_each_counted_once(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, meter: str
) -> None:
    """40 events of 40 customers on 8 threads, each sent until it is answered; every total is exact."""
    assert meter
    customers = [stripe_client.v1.customers.create({}).id for _ in range(8)]
    stripe_sandbox.fault("commit_then_error", path=EVENTS, after=3, count=5)
    stripe_sandbox.fault("drop", path=EVENTS, after=9, count=5)
    stripe_sandbox.fault("commit_then_close", path=EVENTS, after=5, count=5)

    def report(number: int) -> None:
        payload = {"value": str(number + 1), "stripe_customer_id": customers[number % 8]}
        params: Any = {"event_name": "credits", "identifier": f"i{number}", "payload": payload}
        for _ in range(100):
            try:
                stripe_client.v1.billing.meter_events.create(params)
            except stripe.InvalidRequestError as error:
                assert error.user_message == f"An event already exists with identifier i{number}."  # noqa: PT017 - a retry
                return
            except stripe.StripeError:
                continue
            return
        raise AssertionError

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(report, range(40)))
    state = stripe_sandbox.state()
    expected = {
        one: {"credits": sum(number + 1 for number in range(place, 40, 8))} for place, one in enumerate(customers)
    }
    assert state["totals"] == expected
    assert (state["events"], state["faults"]) == (40, [])


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
