"""Grants: written to the ledger first, brought into the bucket second."""

from __future__ import annotations

import uuid
from functools import partial

from billing.admin.access import runtime_for
from billing.connections import postgres
from billing.core.errors import Retryable
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.ledger import locks
from billing.ledger.grant_terms import ORDINARY, Terms
from billing.ledger.grants import GrantRow, add_grant
from billing.recovery.grants import apply_grant, used_up


def grant(
    settings: Settings,
    client_id: str,
    credits_: int,
    *,
    key: str | None = None,
    terms: Terms = ORDINARY,
    reason: str = "",
) -> tuple[GrantRow, bool]:
    """Grant credits to a client; return the grant with whether its bucket has it already.

    `terms` are those of `check_terms`: kind, priority, expiry, SKUs. With a `key` the call is idempotent: the same key
    with the same content is the same grant, with other content a `Conflict`. A bucket that cannot take the grant now
    gets it from the fulfillment worker within seconds. Raises `Retryable` if the bucket alone could tell whether there
    is room for one more grant, and does not answer.
    """
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.begin() as connection:
        # Shared with the consumers, apart from a rebuild: it reads either this grant or leaves it to be applied.
        locks.lock_shards_shared(connection, [shard_of(client_id, settings.shards)])
        once = f"once-{uuid.uuid4()}" if key is None else key
        row, _ = add_grant(
            connection, client_id, credits_, once, reason=reason, terms=terms, used_up=partial(used_up, runtime)
        )
    try:
        return row, row.applied_at is not None or apply_grant(runtime, row)
    except Retryable:
        return row, False
