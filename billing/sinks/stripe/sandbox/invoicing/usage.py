"""What an invoice counts: the usage of a meter that it may see."""

from __future__ import annotations

from decimal import Decimal

from billing.sinks.stripe.sandbox.knobs import Knobs
from billing.sinks.stripe.sandbox.resources.event_summaries import aggregate
from billing.sinks.stripe.sandbox.store import Store


def used(store: Store, knobs: Knobs, meter_id: str, customer: str, period: tuple[int, int], at: int) -> Decimal:
    """Return a customer's usage in [start, end) that has arrived, as far as it is aggregated at a second.

    Nothing arrives before the clock's steps up to then are done. Below 0, which corrections can bring about, it is 0:
    documented.
    """
    start, end = period
    meter = store.meter(meter_id)
    if meter is None or start >= end:
        return Decimal(0)
    events = store.events.counted(meter_id, customer, start, end - 1, now=at)
    seen = [event for event in events if event.received_at + knobs.invoice_lag_seconds <= at]
    return max(Decimal(0), aggregate(meter, seen))
