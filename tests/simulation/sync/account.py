"""The account at the stand-in: meters, prices, customers and subscriptions, made by calls of the SDK without faults."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import stripe

from billing.sinks.stripe.sandbox.billed_records import Subscription
from tests.simulation.sync.population import METERS
from tests.simulation.sync.server import URL, Server, Transport
from tests.stripe_sandbox import sdk_client


class Account:
    """What somebody does at Stripe's dashboard."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._client: stripe.StripeClient = sdk_client(URL, Transport(server))
        self._prices: list[str] = []
        self.subscriptions: dict[str, str] = {}

    def open(self) -> None:
        """Make a meter and a price for each of ours."""
        product = self._client.v1.products.create({"name": "usage"}).id
        for event_name in METERS:
            formula: Any = {"formula": "sum"}
            meter = self._client.v1.billing.meters.create(
                {"display_name": event_name, "event_name": event_name, "default_aggregation": formula}
            )
            recurring: Any = {"interval": "month", "usage_type": "metered", "meter": meter.id}
            price = self._client.v1.prices.create(
                {"product": product, "currency": "eur", "recurring": recurring, "unit_amount_decimal": Decimal(1)}
            )
            self._prices.append(price.id)

    def subscribe(self, name: str, anchor_after_seconds: int) -> str:
        """Make a customer with a subscription whose first period ends after so many seconds; return its id."""
        with self._calm():
            made = self._client.v1.customers.create({"name": name}).id
            anchor = self._server.state.clock.now() + anchor_after_seconds
            items: Any = [{"price": price} for price in self._prices]
            subscription = self._client.v1.subscriptions.create(
                {"customer": made, "items": items, "billing_cycle_anchor": anchor}
            )
            self.subscriptions[made] = subscription.id
            return made

    def cancel_at_period_end(self, customer_id: str) -> None:
        """Let a subscription end with its period."""
        with self._calm():
            self._client.v1.subscriptions.update(self.subscriptions[customer_id], {"cancel_at_period_end": True})

    def delete(self, customer_id: str) -> None:
        """Delete a customer."""
        with self._calm():
            self._client.v1.customers.delete(customer_id)

    def goes_on(self, customer_id: str) -> bool:
        """Whether a customer is there, with a subscription that has not ended."""
        documents = self._server.state.store.documents
        found = documents.get(Subscription, self.subscriptions.get(customer_id, ""))
        return found is not None and found.status == "active"

    def _calm(self) -> Any:
        return self._server.calm()
