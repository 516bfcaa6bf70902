"""The calls of the API, of all resources together."""

from __future__ import annotations

from typing import Final

from billing.sinks.stripe.sandbox.resources import (
    adjustments,
    core_events,
    customers,
    event_summaries,
    invoice_items,
    invoices,
    meter_events,
    meters,
    prices,
    products,
    subscriptions,
    v2_meter_events,
)
from billing.sinks.stripe.sandbox.routing import Table

TABLE: Final = Table(
    (
        *customers.ROUTES,
        *meters.ROUTES,
        *event_summaries.ROUTES,
        *meter_events.ROUTES,
        *adjustments.ROUTES,
        *v2_meter_events.ROUTES,
        *core_events.ROUTES,
        *products.ROUTES,
        *prices.ROUTES,
        *subscriptions.ROUTES,
        *invoices.ROUTES,
        *invoice_items.ROUTES,
    )
)
ROUTES: Final = TABLE.routes
find: Final = TABLE.find
