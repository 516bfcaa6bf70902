"""Reads what the demo waits for, and which runs the log has. Only reads; `audit.py` says what it means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import psycopg

from billing import admin
from billing.admin.access import runtime_for
from billing.connections import postgres
from billing.core.settings import Settings
from billing.core.shards import shard_of

_RECORDED: Final = """
    -- how many runs of some clients the usage history has
    SELECT count(DISTINCT run_id) FROM usage_history WHERE client_id = ANY(%s)
"""
_RUNS: Final = """
    -- how many runs the usage history has of each task of some clients
    SELECT client_id, correlation_id, count(DISTINCT run_id)
    FROM usage_history WHERE client_id = ANY(%s) GROUP BY 1, 2
"""


def recorded(connection: psycopg.Connection[Any], client_ids: Sequence[str]) -> int:
    """Return how many runs the usage history has of some clients."""
    row = connection.execute(_RECORDED, [list(client_ids)]).fetchone()
    return int(row[0]) if row is not None else 0


def runs_of(settings: Settings, client_ids: Sequence[str]) -> dict[tuple[str, str], int]:
    """Return how many runs the usage history has, by client id and task id."""
    with postgres.reaching(settings), postgres.connect(settings) as connection:
        found = connection.execute(_RUNS, [list(client_ids)]).fetchall()
    return {(client_id, task_id): runs for client_id, task_id, runs in found}


def unsettled(settings: Settings, client_ids: Sequence[str]) -> bool:
    """Whether some clients still hold credits, or have events that the log has not confirmed."""
    buckets = runtime_for(settings).buckets
    held = any(admin.balance(settings, client_id).held for client_id in client_ids)
    shards = {shard_of(client_id, settings.shards) for client_id in client_ids}
    return held or any(buckets.outbox_depth(shard) for shard in shards)
