"""Why a reservation was not made, as the error that the caller sees or that puts the delivery off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from billing.catalog.clients import get_client
from billing.connections import postgres
from billing.core.errors import (
    BillingError,
    ClientInactive,
    Conflict,
    InsufficientCredits,
    InvalidValue,
    OutboxFull,
    Recovering,
    UnknownClient,
    Unreachable,
)
from billing.core.shards import shard_of
from billing.credits.values import Hold, ReserveOutcome, ReserveReply
from billing.ledger.rebuilds import request_rebuild

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
        return without_bucket(runtime, client_id, missing=outcome is not ReserveOutcome.RECOVERING)
    if outcome is ReserveOutcome.OUTBOX_FULL:
        return OutboxFull(f"client {client_id!r}: too many usage events of its shard wait for the broker")
    if outcome is ReserveOutcome.AHEAD:
        return InvalidValue("billing_at", str(hold.run_id), "is more than a day ahead of the server's time")
    return Conflict(f"run_id: {hold.run_id}: is already held for another client or SKU")


def without_bucket(runtime: Runtime, client_id: str, *, missing: bool) -> BillingError:
    """Return why there is no bucket to take from: only the catalog knows whether the client exists.

    A known client whose bucket is missing, or is not one that billing wrote, has lost it: its shard is rebuilt, and
    the task waits (L6).
    """
    try:
        with postgres.reaching(runtime.settings), runtime.engine.begin() as connection:
            shard = get_client(connection, client_id).shard
            computed = shard_of(client_id, runtime.settings.shards)
            if shard != computed:
                rule = f"puts client {client_id!r} on shard {computed}, the catalog has it on {shard}: it was changed"
                return InvalidValue("billing_shards", runtime.settings.shards, rule)
            if missing:
                request_rebuild(connection, shard, f"the bucket of client {client_id} is missing or corrupt")
    except UnknownClient as unknown:
        return unknown
    except (Unreachable, SQLAlchemyError) as error:
        return Recovering(f"client {client_id!r}: has no bucket, and the catalog does not answer: {error}")
    return Recovering(f"client {client_id!r}: its shard is being rebuilt; nothing is admitted until then")
