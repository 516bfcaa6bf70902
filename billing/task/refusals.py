"""Why a reservation was not made, as the error that the caller sees or that puts the delivery off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing.core.errors import (
    BillingError,
    ClientInactive,
    Conflict,
    InsufficientCredits,
    InvalidValue,
    OutboxFull,
)
from billing.credits.values import Hold, ReserveOutcome, ReserveReply

if TYPE_CHECKING:
    from billing.task.runtime import Runtime


def refusal(runtime: Runtime, hold: Hold, reply: ReserveReply) -> BillingError:
    """Return what to raise for a reply that admits nothing."""
    outcome, client_id = reply.outcome, hold.client_id
    if outcome is ReserveOutcome.INSUFFICIENT:
        return InsufficientCredits(client_id, hold.sku, reply.required, reply.available)
    if outcome in (ReserveOutcome.SUSPENDED, ReserveOutcome.CLOSED):
        return ClientInactive(client_id, outcome.name.lower())
    if outcome in (ReserveOutcome.UNKNOWN_CLIENT, ReserveOutcome.RECOVERING, ReserveOutcome.CORRUPT):
        missing, corrupt = outcome is not ReserveOutcome.RECOVERING, outcome is ReserveOutcome.CORRUPT
        return runtime.records.without_bucket(client_id, missing=missing, corrupt=corrupt)
    if outcome is ReserveOutcome.OUTBOX_FULL:
        return OutboxFull(f"client {client_id!r}: too many usage events of its shard wait for the broker")
    if outcome is ReserveOutcome.AHEAD:
        return InvalidValue("billing_at", str(hold.run_id), "is more than a day ahead of the server's time")
    return Conflict(f"run_id: {hold.run_id}: is already held for another client or SKU")
