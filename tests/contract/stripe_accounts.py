"""What the tests of Stripe's sink share: an account with a meter, a price and a customer, from the first of May on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import stripe

from billing.core.settings import Settings
from billing.sinks.sink import Kind, Payload
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.period_reader import StripePeriods
from billing.sinks.stripe.sandbox.control import SandboxControl
from billing.sinks.sync.planning.period_source import PeriodsFound
from billing.sinks.sync.planning.periods import CLOSING_MARGIN
from tests.contract.metering import make_meter, metered_price

METER = "credits"
MAY, JUNE, JULY = (datetime(2026, month, 1, tzinfo=UTC) for month in (5, 6, 7))
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
MARGIN = CLOSING_MARGIN


class Account:
    """A customer with a monthly subscription, beside the sink and the period source that look at it."""

    def __init__(self, control: SandboxControl, client: stripe.StripeClient) -> None:
        self.control, self.client = control, client
        self.settings = Settings(stripe_sandbox_url=control.url, stripe_meter=METER)
        self.at(MAY)
        self.meter = str(make_meter(client).id)
        self.price = metered_price(client, self.meter, amount="0.5")
        self.customer = self.new_customer()
        self.subscription = self.subscribe(self.customer)

    def at(self, instant: datetime) -> None:
        """Stop Stripe's time."""
        self.control.set_time(int(instant.timestamp()))

    def new_customer(self) -> str:
        """Make a customer."""
        return self.client.v1.customers.create({"name": "acme"}).id

    def subscribe(self, customer: str, *prices: str, **more: Any) -> str:
        """Subscribe a customer; return the subscription."""
        params: Any = {"customer": customer, "items": [{"price": one} for one in prices or (self.price,)], **more}
        return self.client.v1.subscriptions.create(params).id

    def gateway(self) -> Gateway:
        """Return the sink, which waits as long as a busy machine may need."""
        return Gateway(self.settings, timeouts_seconds=(60.0, 60.0))

    def source(self, *, grace: timedelta = HOUR, **more: Any) -> StripePeriods:
        """Return the period source."""
        return StripePeriods(self.settings, grace=grace, **more)

    def periods(self, customer: str | None = None, *, grace: timedelta = HOUR) -> PeriodsFound:
        """Read one customer's periods."""
        source = self.source(grace=grace)
        try:
            return source.read([customer or self.customer])[customer or self.customer]
        finally:
            source.close()

    def payload(self, identifier: str = "b1-a", units: int = 7, *, event_at: datetime = MAY + DAY) -> Payload:
        """Return an increment's payload."""
        stamped = event_at.replace(second=30)
        return Payload(
            identifier=identifier, event_name=METER, customer_id=self.customer, units=units, event_at=stamped
        )

    def late(self, identifier: str = "b1-late", units: int = 7, customer: str | None = None) -> Payload:
        """Return the payload of an invoice item for May."""
        return Payload(
            kind=Kind.INVOICE_ITEM,
            identifier=identifier,
            event_name=METER,
            customer_id=customer or self.customer,
            units=units,
            event_at=MAY + DAY,
            period_start=MAY,
            period_end=JUNE,
        )
