"""What the stand-in does wrong on request, and what is in flight at the same time.

Faults come over the socket, through the real SDK: a lost answer here is a lost answer at Stripe.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from typing import Any

import pytest
import stripe

from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.contract.metering import EVENTS, Send, status
from tests.stripe_sandbox import sdk_client
from tests.waiting import wait_until


@pytest.fixture
def background() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    """Yield threads for calls that are held up."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        yield pool


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
