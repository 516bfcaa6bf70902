"""The stand-in for Stripe in tests: the stack's own server, emptied for each test, and the SDK's client for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import stripe

from billing.embedded.stack import Stack
from billing.sinks.stripe.sandbox.control import SandboxControl

KEY = "sk_test_standin000000"

stripe.enable_telemetry = False  # else the SDK writes a file into the home directory


@pytest.fixture
def stripe_sandbox(stack: Stack) -> Iterator[SandboxControl]:
    """Empty the session's stand-in; yield its control: `.url`, `.fault(…)`, `.knobs(…)`, `.advance(…)`, `.total(…)`."""
    with SandboxControl(stack.endpoints.stripe_sandbox_url) as control:
        control.reset()
        yield control
        control.reset()


@pytest.fixture
def stripe_client(stripe_sandbox: SandboxControl) -> Iterator[stripe.StripeClient]:
    """Yield the real SDK's client, pointed at the stand-in, without retries."""
    http_client = stripe.RequestsClient(timeout=(60, 60))
    yield sdk_client(stripe_sandbox.url, http_client)
    http_client.close()  # type: ignore[no-untyped-call]


def sdk_client(url: str, http_client: stripe.HTTPClient | None = None, key: str = KEY) -> stripe.StripeClient:
    """Make the SDK's client for a stand-in; every address is set, else a call could leave the machine."""
    addresses: stripe._base_address.BaseAddresses = {"api": url, "meter_events": url, "connect": url, "files": url}
    return stripe.StripeClient(key, base_addresses=addresses, http_client=http_client)
