"""One usage event, one INSERT, one commit: what the task `insert` of `benchmarks.fleet` does, without billing."""

from __future__ import annotations

import functools
import json
import os
from typing import Any, Final

import psycopg

_INSERT: Final = """
INSERT INTO plain (run_id, line, settlement_id, client_id, correlation_id, root_id, task, attempt, sku, quantity,
                   credits, grants, epoch, price_version, late, submitted_at, occurred_at)
VALUES (%(run_id)s, %(line)s, %(settlement_id)s, %(client_id)s, %(correlation_id)s, %(root_id)s, %(task)s,
        %(attempt)s, %(sku)s, %(quantity)s, %(credits)s, %(grants)s, %(epoch)s, %(price_version)s, %(late)s,
        to_timestamp(%(submitted_at)s / 1000.0), to_timestamp(%(occurred_at)s / 1000.0))
ON CONFLICT DO NOTHING
"""


def insert(event: str) -> None:
    """Insert an event of one line."""
    fields: dict[str, Any] = json.loads(event)
    (line,) = fields.pop("lines")
    _connection().execute(_INSERT, fields | line | {"line": 0, "grants": json.dumps(line["grants"])})


@functools.cache
def _connection() -> psycopg.Connection[Any]:
    """Return this process's own connection."""
    return psycopg.connect(os.environ["BENCHMARK_DATABASE_URL"], autocommit=True)
