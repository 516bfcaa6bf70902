"""Allowances: credits that are granted again each month, week or day, until they are ended.

What is due now is granted at once; what becomes due later, and what could not be granted now, comes from the
fulfillment worker, or from beat where none runs.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from billing.admin.access import runtime_for
from billing.catalog import clients as catalog
from billing.connections import postgres
from billing.core.errors import InvalidValue, Retryable
from billing.core.settings import Settings
from billing.ledger import schedules
from billing.ledger.cycles import check_cycle
from billing.ledger.grant_terms import Terms
from billing.ledger.schedules import ScheduleRow
from billing.recovery.allowances import grant_allowance
from billing.recovery.grants import apply_grant

#: L9: allowances that one page of a listing holds at most.
PAGE_MAX: Final = 10_000
_ORDINARY: Final = Terms(kind="allowance")


def add_allowance(  # noqa: PLR0913 - one argument per thing that is agreed
    settings: Settings,
    client_id: str,
    credits_: int,
    *,
    key: str | None = None,
    every: str = "month",
    starts_at: datetime | None = None,
    ends_at: datetime | None = None,
    rollover: int | None = 0,
    terms: Terms = _ORDINARY,
) -> tuple[ScheduleRow, bool]:
    """Grant a client credits in each period; return the allowance with whether it is new.

    `every` is month, week or day, from `starts_at` (now). `rollover`: for how many further periods what is left stays
    usable; 0: it expires with its period, None: it never does. `terms` are those of `check_terms`, without an expiry.
    With a `key` the call is idempotent. Raises `InvalidValue`, `UnknownClient`, `Conflict`.
    """
    if terms.expires_at is not None:
        raise InvalidValue("expires_at", terms.expires_at.isoformat(), "is what each period says: use rollover")
    runtime = runtime_for(settings)
    now = runtime.clock.now()
    cycle = check_cycle(every=every, starts_at=starts_at or now, ends_at=ends_at, rollover=rollover)
    once = f"once-{uuid.uuid4()}" if key is None else key
    with postgres.reaching(settings), runtime.engine.begin() as connection:
        row, created = schedules.add_schedule(
            connection, client_id, credits_, once, cycle=cycle, terms=terms, now=now, any_start=starts_at is None
        )
    if created:
        try:
            for grant in grant_allowance(runtime, row.schedule_id, row.client_id):
                apply_grant(runtime, grant)
        except Retryable:
            return row, created
    return row, created


def end_allowance(settings: Settings, schedule_id: int, *, key: str | None = None) -> ScheduleRow:
    """Grant nothing more of an allowance; what it has granted stays as it is. Idempotent by its key."""
    runtime = runtime_for(settings)
    once = f"end-{schedule_id}" if key is None else key
    with postgres.reaching(settings), runtime.engine.begin() as connection:
        return schedules.end_schedule(connection, schedule_id, once, now=runtime.clock.now())


def allowances(
    settings: Settings, *, client_id: str | None = None, ended: bool = False, limit: int = 100
) -> Sequence[ScheduleRow]:
    """Return the newest allowances, of one client or of all, at most `limit`; `ended`: also those that have ended.

    Raises `InvalidValue`, and `UnknownClient` for a client that was never added.
    """
    if not 1 <= limit <= PAGE_MAX:
        raise InvalidValue("limit", limit, f"must be from 1 to {PAGE_MAX}")
    with postgres.reaching(settings), runtime_for(settings).engine.connect() as connection:
        known = None if client_id is None else catalog.get_client(connection, client_id).client_id
        return schedules.schedules(connection, client_id=known, ended=ended, limit=limit)
