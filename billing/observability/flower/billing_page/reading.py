"""How a page reads PostgreSQL: in a transaction that can write nothing, with a bound on each statement (L9)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection

from billing.connections import postgres
from billing.task.runtime import Runtime

#: L9: how long the server works on one statement of a page. Its reader has gone by then.
STATEMENT_SECONDS_MAX: Final = 5


@contextmanager
def reading(runtime: Runtime) -> Iterator[Connection]:
    """Within, a connection that only reads. Raises as `postgres.reaching`."""
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        connection.exec_driver_sql(
            f"SET TRANSACTION READ ONLY; SET LOCAL statement_timeout = {STATEMENT_SECONDS_MAX * 1_000}"
        )
        yield connection
