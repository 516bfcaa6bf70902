"""What the tests of the stand-in's billing share: a customer with a subscription to usage, and its invoices."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import stripe

from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.contract.metering import Send, metered_price


def at(*parts: int) -> int:
    """Return the second of an instant in UTC."""
    return int(datetime(*parts, tzinfo=UTC).timestamp())  # type: ignore[misc, arg-type]


def subscribe(client: stripe.StripeClient, customer: str, *prices: str, **more: Any) -> stripe.Subscription:
    """Make a subscription."""
    params: Any = {"customer": customer, "items": [{"price": price} for price in prices], **more}
    return client.v1.subscriptions.create(params)


def period(subscription: stripe.Subscription) -> tuple[int, int]:
    """Return the period of a subscription's first item."""
    item = subscription["items"].data[0]
    return item.current_period_start, item.current_period_end


MAY, JUNE, JULY = at(2026, 5, 1), at(2026, 6, 1), at(2026, 7, 1)


class Account:
    """A customer with a subscription to one metered price, from the first of May on, anchored there."""

    def __init__(
        self, control: SandboxControl, client: stripe.StripeClient, send: Send, meter: str, customer: str
    ) -> None:
        self.control, self.client, self._send, self.meter, self.customer = control, client, send, meter, customer
        control.set_time(MAY)
        self.price = metered_price(client, meter, amount="0.5")
        self.subscription = subscribe(client, customer, self.price)
        self.sent = 0

    def use(self, value: int, timestamp: int) -> None:
        """Report usage."""
        self.sent += 1
        self._send(f"i{self.sent}", value=str(value), timestamp=timestamp)

    def invoices(self, **more: Any) -> list[stripe.Invoice]:
        """List the invoices of periods, oldest first."""
        params: Any = {"customer": self.customer, **more}
        listed = self.client.v1.invoices.list(params).data
        return [one for one in reversed(listed) if one.billing_reason == "subscription_cycle"]

    def quantities(self) -> list[list[int | None]]:
        """Return the quantities of the lines of each invoice, oldest first."""
        return [[line.quantity for line in invoice.lines.data] for invoice in self.invoices()]

    def now(self) -> stripe.Subscription:
        """Read the subscription."""
        return self.client.v1.subscriptions.retrieve(self.subscription.id)


@pytest.fixture
def account(
    stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient, send: Send, meter: str, customer: str
) -> Account:
    """Make an account."""
    return Account(stripe_sandbox, stripe_client, send, meter, customer)
