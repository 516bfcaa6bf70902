"""Voids, adjustments, states and overdraft limits: written to the ledger first, brought into the bucket second.

Each is idempotent by its key: the same key with the same content is the same change, with other content a `Conflict`.
Each call returns the change with whether the bucket has it already; one that cannot take it now gets it from the
fulfillment worker within seconds.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Literal

from sqlalchemy import Connection

from billing.admin.access import runtime_for
from billing.admin.grants import grant
from billing.connections import postgres
from billing.core.credits import CREDITS_MAX
from billing.core.errors import InvalidValue, Retryable
from billing.core.settings import Settings
from billing.ledger import changes
from billing.ledger.changes import ChangeRow
from billing.ledger.grant_terms import check_terms
from billing.ledger.grants import GrantRow
from billing.recovery.changes import apply_change


def void(settings: Settings, grant_id: int, *, key: str | None = None, reason: str = "") -> tuple[ChangeRow, bool]:
    """Take a grant back: what it has available is voided, what holds were lent stays theirs."""
    once = f"void-{grant_id}" if key is None else key
    return _change(settings, lambda connection: changes.void_grant(connection, grant_id, once, reason=reason))


def adjust_credits(
    settings: Settings, client_id: str, credits_: int, *, key: str | None = None, reason: str = ""
) -> tuple[GrantRow | ChangeRow, bool]:
    """Correct a client's credits: above 0 they are granted, below 0 taken; what is missing becomes debt."""
    if credits_ == 0:
        raise InvalidValue("credits", credits_, f"must be from 1 to {CREDITS_MAX}, or the same below 0")
    once = _once(key)
    if credits_ > 0:
        return grant(settings, client_id, credits_, key=once, terms=check_terms(kind="adjustment"), reason=reason)
    return _change(
        settings, lambda connection: changes.take_credits(connection, client_id, -credits_, once, reason=reason)
    )


def set_client_state(
    settings: Settings,
    client_id: str,
    state: Literal["active", "suspended", "closed"],
    *,
    key: str | None = None,
    reason: str = "",
) -> tuple[ChangeRow, bool]:
    """Suspend a client (no reserve), close it (no grant either), or make it active. What runs is settled anyway."""
    return _change(
        settings, lambda connection: changes.set_state(connection, client_id, state, _once(key), reason=reason)
    )


def set_overdraft(
    settings: Settings, client_id: str, limit: int, *, key: str | None = None, reason: str = ""
) -> tuple[ChangeRow, bool]:
    """Let a client owe up to so many credits."""
    return _change(
        settings, lambda connection: changes.set_overdraft(connection, client_id, limit, _once(key), reason=reason)
    )


def _once(key: str | None) -> str:
    return f"once-{uuid.uuid4()}" if key is None else key


def _change(settings: Settings, write: Callable[[Connection], tuple[ChangeRow, bool]]) -> tuple[ChangeRow, bool]:
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.begin() as connection:
        row, _ = write(connection)
    try:
        return row, row.applied_at is not None or apply_change(runtime, row)
    except Retryable:
        return row, False
