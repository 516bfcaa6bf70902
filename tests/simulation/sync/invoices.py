"""What the stand-in bills, read from its memory: final invoices, drafts, periods that go on, and invoice items."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from billing.sinks.stripe.sandbox.billed_records import Price, Subscription
from billing.sinks.stripe.sandbox.invoicing.records import Invoice, InvoiceItem
from billing.sinks.stripe.sandbox.store import Store

if TYPE_CHECKING:
    from tests.simulation.sync.stage import Stage

Place = tuple[str, str]
Spans = dict[Place, list[tuple[int, int]]]


class Seen(NamedTuple):
    """A meter event that the stand-in has taken."""

    identifier: str
    event_name: str
    customer: str
    units: int
    timestamp: int
    received_at: int
    counts: int
    was_dropped: int


def events(world: Stage) -> Iterator[Seen]:
    """Yield all events, in the order of their receipt."""
    sql = (
        "SELECT identifier, event_name, customer, CAST(value AS INTEGER), timestamp, received_at, "
        "dropped IS NULL AND canceled_at IS NULL, dropped IS NOT NULL FROM event ORDER BY seq"
    )
    return (Seen._make(row) for row in world.server.state.store._connection.execute(sql))


def billed(world: Stage) -> collections.Counter[Place]:
    """Return the units that are on an invoice, or will be, by customer and meter."""
    state = world.server.state
    state.progress.catch_up(state.clock.now())
    found: collections.Counter[Place] = collections.Counter()
    final, to_come = _spans(state.store, found)
    meter_of = {one.identifier: one.event_name for group in world.log.generations.values() for one in group}
    for item in state.store.documents.of(InvoiceItem):
        identifier = item.details["metadata"].get("billing_identifier", "")
        found[item.owner, meter_of.get(identifier, "")] += item.quantity
    for event in events(world):
        key = event.customer, event.event_name
        if event.counts and not _lies_in(event.timestamp, final[key]) and _lies_in(event.timestamp, to_come[key]):
            found[key] += event.units
    return found


def _spans(store: Store, found: collections.Counter[Place]) -> tuple[Spans, Spans]:
    """Return what final invoices cover, whose usage is added to `found`, and what others will cover."""
    meters = {meter.id: meter.event_name for meter in store.meters()}
    prices = {price.id: meters[price.meter] for price in store.documents.of(Price) if price.meter is not None}
    final: Spans = collections.defaultdict(list)
    to_come: Spans = collections.defaultdict(list)
    for invoice in store.documents.of(Invoice):
        spans = to_come if invoice.finalized_at is None else final
        for charge in invoice.charges:
            if charge.quantity is None:
                spans[invoice.owner, prices[charge.price]].append((charge.start, charge.end))
        for line in invoice.lines:
            if line["parent"]["type"] == "subscription_item_details":
                found[invoice.owner, prices[line["pricing"]["price_details"]["price"]]] += line["quantity"]
    for subscription in store.documents.of(Subscription):
        if subscription.status == "active":
            for item in subscription.items:
                span = subscription.period_start, subscription.period_end
                to_come[subscription.owner, prices[item.price]].append(span)
    return final, to_come


def _lies_in(timestamp: int, spans: Sequence[tuple[int, int]]) -> bool:
    return any(start <= timestamp < end for start, end in spans)
