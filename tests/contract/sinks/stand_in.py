"""Stripe's gateway against the stand-in: its own process, a real socket, the real SDK."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import stripe

from billing.core.settings import Settings
from billing.sinks.sink import MeterSink
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.contract.sinks.place import KEY, NOON

EVENTS = "/v1/billing/meter_events"


class StandInPlace:
    """The stand-in, emptied, with a meter, a price and customers who pay it."""

    event_name = "credits"

    def __init__(self, control: SandboxControl, client: stripe.StripeClient) -> None:
        self._control, self._client = control, client
        self._sinks: list[Gateway] = []
        control.set_time(int(NOON.timestamp()) - 7_200)
        with Gateway(self._settings()) as gateway:
            meter = gateway.setup()
        product = client.v1.products.create({"name": "credits"}).id
        recurring: stripe.params.PriceCreateParamsRecurring = {
            "interval": "month",
            "usage_type": "metered",
            "meter": meter.meter_id,
        }
        self._price = client.v1.prices.create(
            {"product": product, "currency": "eur", "unit_amount_decimal": "1", "recurring": recurring}  # type: ignore[typeddict-item]
        ).id

    def sink(self, *, key: str = KEY) -> MeterSink:
        """Make a gateway. A key of its own is one that the stand-in is to refuse."""
        return self._gateway(self._control.url, key)

    def sink_without_server(self) -> MeterSink:
        """Make a gateway to a port at which nobody listens."""
        return self._gateway("http://127.0.0.1:1", KEY)

    def customer(self) -> str:
        """Make a customer with a subscription since two hours before noon."""
        self._control.set_time(int(NOON.timestamp()) - 7_200)
        made = self._client.v1.customers.create({"name": "acme"}).id
        self._client.v1.subscriptions.create({"customer": made, "items": [{"price": self._price}]})
        self._control.set_time(int(NOON.timestamp()))
        return made

    def delete(self, customer_id: str) -> None:
        """Delete a customer."""
        self._client.v1.customers.delete(customer_id)

    def now(self) -> datetime:
        """Return its time."""
        return datetime.fromtimestamp(self._control.state()["now"], UTC)

    def advance(self, by: timedelta) -> None:
        """Move it on."""
        self._control.advance(int(by.total_seconds()))

    def lag(self, by: timedelta) -> None:
        """Let what is sent show later."""
        self._control.knobs(summary_lag_seconds=int(by.total_seconds()))

    def fault(self, kind: str) -> None:
        """Let the next event fail."""
        self._control.fault(kind, path=EVENTS)

    def close(self) -> None:
        """Close every gateway."""
        for sink in self._sinks:
            sink.close()

    def _settings(self) -> Settings:
        return Settings(stripe_sandbox_url=self._control.url, stripe_meter=self.event_name)

    def _gateway(self, url: str, key: str) -> Gateway:
        made = Gateway(Settings(stripe_sandbox_url=url, stripe_meter=self.event_name))
        if key != KEY:
            made.session.client._requestor._options.api_key = key
        self._sinks.append(made)
        return made
