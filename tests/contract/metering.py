"""What the tests of the stand-in for Stripe share: a meter, a customer, and what sends an event in one request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import stripe

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


def make_meter(client: stripe.StripeClient, **more: Any) -> Any:
    """Make a meter; `sum` unless told otherwise."""
    params: Any = {
        "display_name": "Credits",
        "event_name": "credits",
        "default_aggregation": {"formula": "sum"},
        **more,
    }
    return client.v1.billing.meters.create(params)


def metered_price(client: stripe.StripeClient, meter: str, *, amount: str = "1", **more: Any) -> str:
    """Make a monthly price of a meter, in hundredths of a euro per unit; return its id."""
    product = client.v1.products.create({"name": "credits"}).id
    params: Any = {
        "product": product,
        "currency": "eur",
        "recurring": {"interval": "month", "usage_type": "metered", "meter": meter},
        "unit_amount_decimal": amount,
        **more,
    }
    return client.v1.prices.create(params).id


def values(client: stripe.StripeClient, meter: str, customer: str, start: int, end: int, **more: Any) -> list[float]:
    """Return the aggregated values of summaries."""
    params: Any = {"customer": customer, "start_time": start, "end_time": end, **more}
    return [one.aggregated_value for one in client.v1.billing.meters.event_summaries.list(meter, params).data]


def status(error: pytest.ExceptionInfo[stripe.StripeError]) -> int | None:
    """Return the HTTP status that the SDK saw."""
    return error.value.http_status
