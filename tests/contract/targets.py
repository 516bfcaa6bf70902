"""The account that rules are checked against: the stand-in's, and Stripe's when STRIPE_SANDBOX_KEY has a test key.

A live key is refused.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import stripe

from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.stripe_sandbox import sdk_client

VARIABLE = "STRIPE_SANDBOX_KEY"
TARGETS = ["stand-in", *(["stripe"] if os.environ.get(VARIABLE) else [])]
MINUTE, DAY = 60, 86_400


class Target:
    """The account that a test talks to, with a meter and a customer of the test's own."""

    def __init__(self, client: stripe.StripeClient, formula: str = "sum") -> None:
        self.client = client
        self.event_name = f"credits_{uuid.uuid4().hex[:12]}"
        self.meter = client.v1.billing.meters.create(
            {"display_name": "Test", "event_name": self.event_name, "default_aggregation": {"formula": formula}}
        )
        self.customer = client.v1.customers.create({"name": "test"}).id

    def send(self, value: str = "5", *, key: str | None = None, customer: str | None = None, **more: Any) -> Any:
        """Send one meter event."""
        payload = {"value": value, "stripe_customer_id": customer or self.customer}
        params: dict[str, Any] = {"event_name": self.event_name, "payload": payload, **more}
        return self.client.v1.billing.meter_events.create(
            params,  # type: ignore[arg-type]
            {} if key is None else {"idempotency_key": key},
        )

    def refusal(self, *arguments: Any, **more: Any) -> stripe.InvalidRequestError:
        """Send one meter event that must be refused; return the SDK's exception."""
        with pytest.raises(stripe.InvalidRequestError) as caught:
            self.send(*arguments, **more)
        assert caught.value.http_status == 400
        return caught.value

    def summaries(self, start: int, end: int, **more: Any) -> Any:
        """List summaries."""
        params: Any = {"customer": self.customer, "start_time": start, "end_time": end, **more}
        return self.client.v1.billing.meters.event_summaries.list(self.meter.id, params)

    def total(self, start: int, end: int) -> float:
        """Return what the summaries show."""
        return float(sum(summary.aggregated_value for summary in self.summaries(start, end).data))


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """Yield a target: the stand-in, or a Stripe sandbox when there is a key for one."""
    http_client = stripe.RequestsClient(timeout=(60, 60))
    if request.param == "stand-in":
        control: SandboxControl = request.getfixturevalue("stripe_sandbox")
        yield Target(sdk_client(control.url, http_client))
    else:
        key = os.environ[VARIABLE]
        assert key.startswith(("sk_test_", "rk_test_")), f"{VARIABLE}: must be a test key, never a live one"
        yield Target(stripe.StripeClient(key, http_client=http_client))
    http_client.close()  # type: ignore[no-untyped-call]


def minute_ago() -> int:
    """Return a second in the middle of an earlier minute, off both its boundaries."""
    return (int(time.time()) // MINUTE - 2) * MINUTE + 30
