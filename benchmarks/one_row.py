"""One usage event, one INSERT, one commit: what the task `insert` of `benchmarks.fleet` does, without billing.

Beside it many events with one commit, as the task of celery-batches and a plain `executemany` write them.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable
from typing import Any, Final

import psycopg

INSERT: Final = """
INSERT INTO plain (run_id, line, settlement_id, client_id, correlation_id, root_id, task, attempt, sku, quantity,
                   credits, grants, epoch, price_version, late, submitted_at, occurred_at)
VALUES (%(run_id)s, %(line)s, %(settlement_id)s, %(client_id)s, %(correlation_id)s, %(root_id)s, %(task)s,
        %(attempt)s, %(sku)s, %(quantity)s, %(credits)s, %(grants)s, %(epoch)s, %(price_version)s, %(late)s,
        to_timestamp(%(submitted_at)s / 1000.0), to_timestamp(%(occurred_at)s / 1000.0))
ON CONFLICT DO NOTHING
"""


def insert(event: str) -> None:
    """Insert an event of one line."""
    _connection().execute(INSERT, values(event))


def insert_many(events: Iterable[str]) -> None:
    """Insert events of one line each, with one commit."""
    with _connection().transaction(), _connection().cursor() as cursor:
        cursor.executemany(INSERT, [values(event) for event in events])


def values(event: str | bytes) -> dict[str, Any]:
    """Return what `INSERT` takes of an event of one line."""
    fields: dict[str, Any] = json.loads(event)
    (line,) = fields.pop("lines")
    return {**fields, **line, "line": 0, "grants": json.dumps(line["grants"])}


@functools.cache
def _connection() -> psycopg.Connection[Any]:
    """Return this process's own connection."""
    return psycopg.connect(os.environ["BENCHMARK_DATABASE_URL"], autocommit=True)
