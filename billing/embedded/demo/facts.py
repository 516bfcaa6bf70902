"""Reads what the three books say about some clients: Redis the buckets, PostgreSQL the ledger and the usage history.

Only reads. What the readings have to do with each other is `audit.py`'s business.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import psycopg

from billing import admin
from billing.admin.access import runtime_for
from billing.connections import postgres
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.credits.values import Balance
from billing.embedded.demo.receipt_csv import UsageRow

#: Rows fetched at once from the database (L9).
FETCH_ROWS: Final = 1_000

_HISTORY: Final = """
    -- the usage of some clients, one row per line, in the order in which it occurred
    SELECT run_id, line, client_id, correlation_id, task, sku, quantity, credits, price_version, grants, occurred_at
    FROM usage_history
    WHERE client_id = ANY(%s)
    ORDER BY client_id, occurred_at, run_id, line
"""
_RECORDED: Final = """
    -- how many runs of some clients the usage history has
    SELECT count(DISTINCT run_id) FROM usage_history WHERE client_id = ANY(%s)
"""
_GRANTED: Final = "SELECT client_id, grant_id, credits FROM credit_grant WHERE client_id = ANY(%s)"
_ROLLED_UP: Final = "SELECT client_id, sum(credits)::bigint FROM usage_rollup WHERE client_id = ANY(%s) GROUP BY 1"
_SPENT: Final = "SELECT client_id, grant_id, credits FROM grant_spent WHERE client_id = ANY(%s)"
_DEAD_LETTERS: Final = "SELECT count(*) FROM dead_letter"


@dataclasses.dataclass(kw_only=True, slots=True)
class History:
    """What the usage history has of one client. `runs` counts the run ids of each task id."""

    rows: int = 0
    credits: int = 0
    runs: Counter[str] = dataclasses.field(default_factory=Counter)
    spent: Counter[int] = dataclasses.field(default_factory=Counter)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Books:
    """All readings, per client id. Grants are (grant id → credits); grant 0 is debt."""

    balances: Mapping[str, Balance]
    granted: Mapping[str, Mapping[int, int]]
    histories: Mapping[str, History]
    rolled_up: Mapping[str, int]
    spent: Mapping[str, Mapping[int, int]]
    dead_letters: int
    outbox_entries: int


def recorded(connection: psycopg.Connection[Any], client_ids: Sequence[str]) -> int:
    """Return how many runs the usage history has of some clients."""
    return _one(connection, _RECORDED, [list(client_ids)])


def unsettled(settings: Settings, client_ids: Sequence[str]) -> bool:
    """Whether some clients still hold credits, or have events that the log has not confirmed."""
    held = any(admin.balance(settings, client_id).held for client_id in client_ids)
    return held or bool(_outbox_entries(settings, client_ids))


def usage_rows(settings: Settings, client_ids: Sequence[str]) -> Iterator[UsageRow]:
    """Yield the usage of some clients, one client after the other, each in order of time; memory stays small."""
    with postgres.connect(settings) as connection, connection.cursor(name="demo_usage") as cursor:
        cursor.itersize = FETCH_ROWS
        cursor.execute(_HISTORY, [list(client_ids)])
        for row in cursor:
            run_id, line, client_id, task_id, task, sku, quantity, credits_, version, grants, occurred_at = row
            yield UsageRow(
                run_id=str(run_id),
                line=line,
                client_id=client_id,
                correlation_id=task_id,
                task=task,
                sku=sku,
                quantity=quantity,
                price_version=version,
                credits=credits_,
                grants={int(share["grant"]): int(share["credits"]) for share in grants},
                occurred_at=occurred_at,
            )


def read_books(settings: Settings, client_ids: Sequence[str]) -> Books:
    """Read everything about some clients."""
    histories = {client_id: History() for client_id in client_ids}
    seen: set[str] = set()
    for row in usage_rows(settings, client_ids):
        history = histories[row.client_id]
        history.rows += 1
        history.credits += row.credits
        history.spent.update(row.grants)
        if row.run_id not in seen:
            seen.add(row.run_id)
            history.runs[row.correlation_id] += 1
    wanted = [list(client_ids)]
    with postgres.connect(settings) as connection:
        return Books(
            balances={client_id: admin.balance(settings, client_id) for client_id in client_ids},
            granted=_per_grant(connection.execute(_GRANTED, wanted)),
            histories=histories,
            rolled_up=dict(connection.execute(_ROLLED_UP, wanted).fetchall()),
            spent=_per_grant(connection.execute(_SPENT, wanted)),
            dead_letters=_one(connection, _DEAD_LETTERS, []),
            outbox_entries=_outbox_entries(settings, client_ids),
        )


def _outbox_entries(settings: Settings, client_ids: Sequence[str]) -> int:
    buckets = runtime_for(settings).buckets
    return sum(buckets.outbox_depth(shard) for shard in {shard_of(name, settings.shards) for name in client_ids})


def _per_grant(rows: Iterator[Any] | psycopg.Cursor[Any]) -> dict[str, dict[int, int]]:
    found: dict[str, dict[int, int]] = {}
    for client_id, grant_id, credits_ in rows:
        found.setdefault(client_id, {})[grant_id] = credits_
    return found


def _one(connection: psycopg.Connection[Any], query: str, parameters: list[Any]) -> int:
    row = connection.execute(query.encode(), parameters).fetchone()
    return int(row[0]) if row is not None else 0
