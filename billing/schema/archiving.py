"""Reads the parts of the usage history, and moves a month between it and the archive.

A move promises the month's bounds first and has them validated, so that the move itself reads no row: it is one
transaction of milliseconds, whole or not at all, and consumers wait for it no longer than `LOCK_SECONDS`. Killed at any
step, the same move run again completes it. It refuses nothing: who may move what, the caller decides.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from sqlalchemy import Connection, Engine, TextClause, text
from sqlalchemy.exc import OperationalError

from billing.connections import postgres
from billing.core.errors import Retryable
from billing.schema.months import Partition

#: How long a move waits for those who use the history; whoever comes meanwhile waits behind it (L10).
LOCK_SECONDS: Final = 2
#: How long the bounds of a month may take to be validated; its rows are read once, beside all others (L9).
VALIDATE_SECONDS: Final = 3_600
#: A table of at most so many bytes is counted; of a larger one PostgreSQL's estimate is shown, unless asked for.
COUNTED_BYTES_MAX: Final = 8_388_608

_READ: Final = text("""
SELECT name, schema, place, first_id, end_id, is_bounded, estimated_rows, pg_relation_size(partition) AS heap,
       pg_total_relation_size(partition) AS size_bytes
FROM usage_partition ORDER BY first_id NULLS FIRST, name
""")
#: By the bounds of its run ids: a reader may read the whole, and no part of it by name.
_COUNT: Final = text("""
SELECT count(*) FROM usage_ever WHERE run_id >= coalesce(CAST(:first AS uuid), '00000000-0000-0000-0000-000000000000')
  AND run_id <= coalesce(CAST(:end AS uuid), 'ffffffff-ffff-ffff-ffff-ffffffffffff')
  AND (CAST(:end AS uuid) IS NULL OR run_id < CAST(:end AS uuid))
""")
_SETTINGS: Final = text("""
SELECT set_config('lock_timeout', :lock, true), set_config('statement_timeout', :statement, true)
""")
_BOUND: Final = text("SELECT billing_bound_usage_month(:name)")
_DETACH: Final = text("SELECT billing_detach_usage_month(:name)")
_ATTACH: Final = text("SELECT billing_attach_usage_month(:name)")


class InUse(Retryable):
    """Somebody uses the history for longer than a move may wait."""


def read_partitions(connection: Connection, *, exact: bool = False) -> list[Partition]:
    """Return every part of the history, in the order of its run ids. `exact` counts the rows of all of them."""
    found = connection.execute(_READ).all()
    partitions = []
    for row in found:
        counted = exact or row.heap <= COUNTED_BYTES_MAX
        rows = row.estimated_rows if row.estimated_rows >= 0 else None
        if counted and row.place in ("history", "archive"):
            rows = connection.execute(_COUNT, {"first": row.first_id, "end": row.end_id}).scalar_one()
        elif counted:
            query = f'SELECT count(*) FROM "{row.schema}"."{row.name}"'  # noqa: S608 - names that billing made
            rows = connection.execute(text(query)).scalar_one()
        partitions.append(
            Partition(
                name=row.name,
                schema=row.schema,
                place=row.place,
                first_id=row.first_id,
                end_id=row.end_id,
                prepared=row.is_bounded and row.place == "history",
                rows=rows,
                exact=counted,
                size_bytes=row.size_bytes,
            )
        )
    return partitions


def detach(engine: Engine, month: Partition) -> None:
    """Move a month to the archive, from wherever it is. Raises `InUse`."""
    _prepare(engine, month)
    _step(engine, month, _DETACH)


def attach(engine: Engine, month: Partition) -> None:
    """Move a month back to the history, from wherever it is. Raises `InUse`."""
    _prepare(engine, month)
    _step(engine, month, _ATTACH)


def _prepare(engine: Engine, month: Partition) -> None:
    """Finish what was killed half way, promise the month's bounds, and have its rows looked at."""
    quoted = f'"{month.schema}"."{month.name}"'
    if month.place == "leaving":
        _step(engine, month, text(f"ALTER TABLE usage_history DETACH PARTITION {quoted} FINALIZE"))
        month = dataclasses.replace(month, place="adrift")
    _step(engine, month, _BOUND)
    _step(engine, month, text(f"ALTER TABLE {quoted} VALIDATE CONSTRAINT billing_month"))


def _step(engine: Engine, month: Partition, statement: TextClause) -> None:
    """Take one step, in a transaction of its own."""
    limits = {"lock": f"{LOCK_SECONDS}s", "statement": f"{VALIDATE_SECONDS}s"}
    try:
        with engine.begin() as connection:
            connection.execute(_SETTINGS, limits)
            connection.execute(statement, {"name": month.name})
    except OperationalError as error:
        if postgres.is_locked(error):
            message = f"month: '{month.month}': usage_history is in use: nothing was moved, run it again"
            raise InUse(message) from error
        raise
