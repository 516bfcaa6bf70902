"""Stripe's documented and observed rules of metering, each through the real SDK.

The same assertions run against a Stripe sandbox when STRIPE_SANDBOX_KEY holds a test key (a live one is refused);
without it they run against the stand-in alone.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

import httpx
import pytest
import stripe

from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.contract.targets import DAY, MINUTE, Target, minute_ago
from tests.stripe_sandbox import KEY, sdk_client
from tests.waiting import wait_until

#: Stripe's summaries are eventually consistent, without a promise.
SUMMARY_SECONDS = 150.0


def test_an_event_is_answered_with_what_was_sent(target: Target) -> None:
    """And with an identifier when none was given."""
    at, identifier = minute_ago(), uuid.uuid4().hex
    event = target.send("7", identifier=identifier, timestamp=at)
    assert (event.identifier, event.timestamp, event.event_name) == (identifier, at, target.event_name)
    assert event.payload.to_dict() == {"value": "7", "stripe_customer_id": target.customer}
    assert target.send("1").identifier not in {"", identifier}


def test_an_identifier_counts_once(target: Target) -> None:
    """The second is refused with this sentence and no code, under a fresh key; the SDK is told not to retry."""
    at, identifier = minute_ago(), f"i-{uuid.uuid4().hex}"
    target.send("5", identifier=identifier, timestamp=at)

    error = target.refusal("5", identifier=identifier, timestamp=at)
    assert error.user_message == f"An event already exists with identifier {identifier}."
    assert error.error is not None
    assert (error.code, error.error.type) == (None, "invalid_request_error")
    assert (error.headers or {})["stripe-should-retry"] == "false"
    target.refusal("6", identifier=identifier, timestamp=at)  # other content does not make it another event

    start = at // MINUTE * MINUTE
    wait_until(
        lambda: target.total(start, start + MINUTE) == 5.0, "five, counted once", timeout_seconds=SUMMARY_SECONDS
    )


def test_a_replay_under_the_same_key_is_the_first_answer(target: Target) -> None:
    """Status and body come again, marked as replayed, and nothing is counted twice."""
    key, at = uuid.uuid4().hex, minute_ago()
    first = target.send("5", key=key, timestamp=at)
    again = target.send("5", key=key, timestamp=at)
    assert again.identifier == first.identifier
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.last_response.headers


def test_a_key_of_other_parameters_is_an_idempotency_error(target: Target) -> None:
    """A key belongs to one request."""
    key = uuid.uuid4().hex
    target.send("5", key=key)
    with pytest.raises(stripe.IdempotencyError) as caught:
        target.send("6", key=key)
    assert caught.value.http_status == 400


def test_a_key_is_not_spent_by_a_request_that_fails_validation(target: Target) -> None:
    """The corrected request may use it."""
    key = uuid.uuid4().hex
    with pytest.raises(stripe.InvalidRequestError):
        target.send("5", key=key, unknown="1")
    assert target.send("5", key=key).payload["value"] == "5"


def test_an_unknown_parameter_is_refused(target: Target) -> None:
    """It is never ignored: a misspelt `identifier` would lose the protection against duplicates."""
    error = target.refusal(identifer="x")
    assert (error.code, error.param) == ("parameter_unknown", "identifer")


@pytest.mark.parametrize("name", ["event_name", "payload"])
def test_a_missing_parameter_is_refused(target: Target, name: str) -> None:
    """Both of them must be there."""
    params: dict[str, Any] = {
        "event_name": target.event_name,
        "payload": {"value": "1", "stripe_customer_id": target.customer},
    }
    del params[name]
    with pytest.raises(stripe.InvalidRequestError) as caught:
        target.client.v1.billing.meter_events.create(params)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.param) == ("parameter_missing", name)


def test_an_identifier_has_at_most_100_characters(target: Target) -> None:
    """From Stripe's OpenAPI description."""
    long = uuid.uuid4().hex * 4
    assert target.send(identifier=long[:100]).identifier == long[:100]
    target.refusal(identifier=long[:101])


def test_a_timestamp_is_at_most_35_days_old(target: Target) -> None:
    """34 days are taken, 36 refused, with Stripe's sentence."""
    now = int(time.time())
    target.send(timestamp=now - 34 * DAY)
    said = target.refusal(timestamp=now - 36 * DAY).user_message or ""
    assert said.startswith(
        "The event timestamp cannot be more than 35 days in past. Expected a timestamp greater than or equal to "
    )


def test_a_timestamp_is_at_most_five_minutes_ahead(target: Target) -> None:
    """Four minutes are taken, six refused."""
    now = int(time.time())
    target.send(timestamp=now + 4 * MINUTE)
    target.refusal(timestamp=now + 6 * MINUTE)


@pytest.mark.parametrize("value", ["1000000000000000", "five", ""])
def test_a_value_is_a_number_of_at_most_15_digits(target: Target, value: str) -> None:
    """Sixteen digits, words and nothing are refused."""
    target.refusal(value)


def test_the_largest_and_a_negative_value_are_taken(target: Target) -> None:
    """A negative value is a correction."""
    at = minute_ago()
    target.send("999999999999999", timestamp=at)
    target.send("-999999999999990", timestamp=at)
    start = at // MINUTE * MINUTE
    wait_until(lambda: target.total(start, start + MINUTE) == 9.0, "the sum", timeout_seconds=SUMMARY_SECONDS)


def test_no_event_for_a_meter_that_is_not_there_or_inactive(target: Target) -> None:
    """A deactivated meter takes no more events."""
    target.refusal(event_name=f"no_{uuid.uuid4().hex}")
    assert target.client.v1.billing.meters.deactivate(target.meter.id).status_transitions.deactivated_at is not None
    target.refusal()
    assert target.client.v1.billing.meters.retrieve(target.meter.id).status == "inactive"


@pytest.mark.parametrize(
    ("start", "end", "grouping"), [(30, 120, None), (60, 90, None), (60, 3600, "hour"), (0, 3600, "day")]
)
def test_summaries_are_aligned(target: Target, start: int, end: int, grouping: str | None) -> None:
    """With minutes, or with the hours or days of UTC that they are grouped by."""
    day = int(time.time()) // DAY * DAY - DAY
    more = {} if grouping is None else {"value_grouping_window": grouping}
    with pytest.raises(stripe.InvalidRequestError) as caught:
        target.summaries(day + start, day + end, **more)
    assert caught.value.http_status == 400


def test_the_summary_of_a_minute_is_what_was_sent_for_it(target: Target) -> None:
    """The check whether one increment exists: neighbours do not show in it."""
    at = minute_ago()
    target.send("3", timestamp=at)
    target.send("4", timestamp=at - MINUTE)
    start = at // MINUTE * MINUTE
    wait_until(
        lambda: (target.total(start, start + MINUTE), target.total(start - MINUTE, start + MINUTE)) == (3.0, 7.0),
        "three in its minute, seven in both",
        timeout_seconds=SUMMARY_SECONDS,
    )


def test_summaries_are_grouped_by_hour(target: Target) -> None:
    """One per hour, each with its bounds; a page has at most 100, ten by default."""
    day = int(time.time()) // DAY * DAY - DAY
    for hour, value in ((1, "2"), (1, "3"), (5, "7")):
        target.send(value, timestamp=day + hour * 3600 + 30)

    def shown() -> dict[int, float]:
        page = target.summaries(day, day + DAY, value_grouping_window="hour", limit=5)
        return {one.start_time: one.aggregated_value for one in page.auto_paging_iter() if one.aggregated_value}

    expected = {day + 3600: 5.0, day + 5 * 3600: 7.0}
    wait_until(lambda: shown() == expected, "five in the second hour, seven in the sixth", timeout_seconds=150)
    with pytest.raises(stripe.InvalidRequestError):
        target.summaries(day, day + DAY, value_grouping_window="hour", limit=101)


@pytest.mark.parametrize("key", ["", "sk_test", "pk_test_abcdefghijk", "sk_live_abcdefghijk"])
def test_a_key_that_is_no_secret_test_key_is_refused(stripe_sandbox: SandboxControl, key: str) -> None:
    """A live one above all: whoever sends it believes that this is Stripe. None is repeated in the answer."""
    http_client = stripe.RequestsClient()
    with pytest.raises(stripe.AuthenticationError) as caught:
        sdk_client(stripe_sandbox.url, http_client, key or " ").v1.customers.create({})
    http_client.close()  # type: ignore[no-untyped-call]
    assert caught.value.http_status == 401
    assert key == "" or key not in str(caught.value)
    assert stripe_sandbox.state()["customers"] == 0


@pytest.mark.parametrize(
    ("user", "status"),
    [("sk_test_abcdefghijk", 200), ("sk_live_abcdefghijk", 401), ("pk_test_abcdefghijk", 401), ("", 401)],
)
def test_a_key_may_come_as_a_user_s_name(stripe_sandbox: SandboxControl, user: str, status: int) -> None:
    """As `curl -u sk_test_…:` sends it; what cannot be decoded is no key."""
    url = f"{stripe_sandbox.url}/v1/customers"
    assert httpx.post(url, auth=(user, ""), data={"name": "acme"}).status_code == status
    assert httpx.post(url, headers={"Authorization": "Basic $"}).status_code == 401


def test_an_unknown_call_is_refused(stripe_client: stripe.StripeClient) -> None:
    """The stand-in never pretends to have done what it cannot do."""
    with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL") as caught:
        stripe_client.v1.coupons.create({"name": "x"})
    assert caught.value.http_status == 404
    assert KEY not in str(caught.value)
