"""Writes the grants that allowances are due for. They reach their buckets as every grant does (`grants.py`).

Each grant is a transaction of its own: an allowance that is refused, or whose client or shard is locked, is put off and
keeps no other one waiting (L10). Any number of processes may do it at the same time.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy.exc import IntegrityError

from billing.connections import postgres
from billing.core.errors import Rejected
from billing.core.shards import shard_of
from billing.ledger import locks
from billing.ledger.grants import GrantRow
from billing.ledger.schedules import due_schedules, grant_due, put_off
from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: Allowances that one pass looks at (L9).
SCHEDULES_MAX: Final = 500
#: Grants that one look at an allowance writes: more are due only after a long pause (L9).
PERIODS_MAX: Final = 8


def grant_allowances(runtime: Runtime) -> int:
    """Write what is due; return how many grants that made. Raises `Unreachable` when PostgreSQL is away."""
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        due = due_schedules(connection, runtime.clock.now(), SCHEDULES_MAX)
    return sum(len(grant_allowance(runtime, schedule_id, client_id)) for schedule_id, client_id in due)


def grant_allowance(runtime: Runtime, schedule_id: int, client_id: str) -> Sequence[GrantRow]:
    """Write what one allowance is due for; return the new grants. What keeps it from that is noted and logged."""
    now, made = runtime.clock.now(), list[GrantRow]()
    try:
        for _ in range(PERIODS_MAX):
            written = _grant_next(runtime, schedule_id, client_id, now)
            if not written:
                break
            made += written
    except (Rejected, IntegrityError, locks.Locked) as error:
        reason = type(error.orig).__name__ if isinstance(error, IntegrityError) else str(error)
        logger.warning("billing: allowance %d of client %s is put off: %s", schedule_id, client_id, reason)
        with postgres.reaching(runtime.settings), runtime.engine.begin() as connection:
            put_off(connection, schedule_id, reason, now)
    return made


def _grant_next(runtime: Runtime, schedule_id: int, client_id: str, now: datetime) -> Sequence[GrantRow]:
    with postgres.reaching(runtime.settings), runtime.engine.begin() as connection, locks.waiting_briefly(connection):
        # Apart from a rebuild, as every grant: it reads either this one or leaves it to be applied.
        locks.lock_shards_shared(connection, [shard_of(client_id, runtime.settings.shards)])
        return grant_due(connection, schedule_id, client_id, now)
