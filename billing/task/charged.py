"""Whether a run was charged before, for as long as there is a log: Redis remembers settled runs for an hour only."""

from __future__ import annotations

import uuid

from sqlalchemy import Connection, exists, select

from billing.schema.tables import usage_history


def is_charged(connection: Connection, run_id: uuid.UUID) -> bool:
    """Return whether the usage history has the run. One look at one index of one partition."""
    found = exists().where(usage_history.c.run_id == run_id)
    return bool(connection.execute(select(found)).scalar_one())
