"""What the clock brings: periods end, drafts become final. Nothing runs on its own: each call first catches up.

Guarantee: steps are taken in the order of their time, however far the clock has moved, and each only once; at the same
second an invoice becomes final before a period ends. So the result does not depend on when anybody called.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable
from decimal import Decimal
from typing import Final

from billing.sinks.stripe.sandbox.billed_records import Subscription
from billing.sinks.stripe.sandbox.invoicing import drafting
from billing.sinks.stripe.sandbox.invoicing.records import Charge, Invoice
from billing.sinks.stripe.sandbox.knobs import Knobs
from billing.sinks.stripe.sandbox.periods import next_boundary
from billing.sinks.stripe.sandbox.store import Store

FINALIZE: Final = 0
END_PERIOD: Final = 1


class Progress:
    """What is still to come, in memory; it is found again in the store after a restart.

    A step that a rollback has made idle stays: whoever takes it finds nothing to do.
    """

    def __init__(self, store: Store, knobs: Callable[[], Knobs]) -> None:
        self._store, self._knobs = store, knobs
        self._steps: list[tuple[int, int, str]] | None = None
        store.on_emptied(self.forget)

    def forget(self) -> None:
        """Find what is to come in the store, next time."""
        self._steps = None

    def catch_up(self, now: int) -> None:
        """Do all that was due by now. Costs nothing when nothing was."""
        if self._steps is None:
            self._steps = self._find()
        if not self._steps or self._steps[0][0] > now:
            return
        try:
            with self._store.transaction():
                while self._steps and self._steps[0][0] <= now:
                    at, kind, document_id = heapq.heappop(self._steps)
                    (self._finalize if kind == FINALIZE else self._end_period)(document_id, at)
        except BaseException:
            self.forget()  # steps that were taken are undone
            raise

    def begin(self, subscription: Subscription) -> Subscription:
        """Take a new subscription: its first invoice is final at once, and holds what is paid ahead."""
        charges = drafting.advance_charges(self._store, subscription)
        nothing_used = [
            dataclasses.replace(charge, quantity=0)
            for charge in drafting.usage_charges(self._store, subscription, subscription.period_end)
        ]
        if self._knobs().first_invoice or charges:
            invoice = drafting.draft(
                self._store,
                subscription,
                [*nothing_used, *charges],
                at=subscription.created,
                finalizes_at=subscription.created,
                reason="subscription_create",
            )
            drafting.finalized(self._store, self._knobs(), invoice, subscription.created)
            subscription = dataclasses.replace(subscription, latest_invoice=invoice.id)
        self._store.documents.put(subscription)
        self._push(subscription.period_end, END_PERIOD, subscription.id)
        return subscription

    def end_now(self, subscription: Subscription, now: int) -> Subscription:
        """Make the last invoice of a subscription that ends now, for what was used until now."""
        subscription = self._invoice(subscription, drafting.usage_charges(self._store, subscription, now), now)
        self._store.documents.put(subscription)
        return subscription

    def cut_off(self, subscription: Subscription, item: str, now: int) -> None:
        """Let the draft of an ended period count no more usage of an item whose price changes: documented."""
        for invoice in self._store.documents.of(Invoice, owner=subscription.owner):
            if invoice.status == "draft" and invoice.subscription == subscription.id:
                charges = [
                    dataclasses.replace(charge, quantity=int(self._quantity(invoice, charge, now)))
                    if charge.item == item
                    else charge
                    for charge in invoice.charges
                ]
                self._store.documents.put(dataclasses.replace(invoice, charges=tuple(charges)))

    def end_all(self, customer: str, now: int) -> None:
        """End the subscriptions of a customer that was deleted, without a last invoice."""
        for subscription in self._store.documents.of(Subscription, owner=customer):
            if subscription.status == "active":
                ended = dataclasses.replace(subscription, status="canceled", canceled_at=now, ended_at=now)
                self._store.documents.put(ended)

    def _quantity(self, invoice: Invoice, charge: Charge, now: int) -> Decimal:
        return drafting.quantity_of(self._store, self._knobs(), invoice, charge, now)

    def _end_period(self, subscription_id: str, at: int) -> None:
        subscription = self._store.documents.get(Subscription, subscription_id)
        if subscription is None or subscription.status != "active" or subscription.period_end != at:
            return
        charges = drafting.usage_charges(self._store, subscription, at)
        if subscription.cancel_at_period_end:
            ended = dataclasses.replace(subscription, status="canceled", ended_at=at)
            self._store.documents.put(self._invoice(ended, charges, at))
            return
        end = next_boundary(subscription.billing_cycle_anchor, subscription.interval, subscription.interval_count, at)
        following = dataclasses.replace(subscription, period_start=at, period_end=end)
        charges += drafting.advance_charges(self._store, following)
        billed = self._invoice(subscription, charges, at)
        self._store.documents.put(dataclasses.replace(following, latest_invoice=billed.latest_invoice))
        self._push(end, END_PERIOD, subscription_id)

    def _invoice(self, subscription: Subscription, charges: list[Charge], at: int) -> Subscription:
        """Make the draft of a period that ends, and return the subscription that names it."""
        knobs = self._knobs()
        last_at_once = subscription.status == "canceled" and knobs.last_invoice == "at_once"
        grace = 0 if last_at_once else knobs.invoice_grace_seconds
        invoice = drafting.draft(
            self._store, subscription, charges, at=at, finalizes_at=at + grace, reason="subscription_cycle"
        )
        if grace:
            self._push(invoice.finalizes_at, FINALIZE, invoice.id)
        else:
            drafting.finalized(self._store, knobs, invoice, at)
        return dataclasses.replace(subscription, latest_invoice=invoice.id)

    def _finalize(self, invoice_id: str, at: int) -> None:
        invoice = self._store.documents.get(Invoice, invoice_id)
        if invoice is not None and invoice.status == "draft":
            drafting.finalized(self._store, self._knobs(), invoice, at)

    def _push(self, at: int, kind: int, document_id: str) -> None:
        if self._steps is not None:
            heapq.heappush(self._steps, (at, kind, document_id))

    def _find(self) -> list[tuple[int, int, str]]:
        subscriptions = self._store.documents.of(Subscription)
        invoices = self._store.documents.of(Invoice)
        steps = [(one.period_end, END_PERIOD, one.id) for one in subscriptions if one.status == "active"]
        steps += [(one.finalizes_at, FINALIZE, one.id) for one in invoices if one.status == "draft"]
        heapq.heapify(steps)
        return steps
