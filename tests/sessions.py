"""Waits until what a killed process had begun in PostgreSQL is undone: the server learns of a death a moment later."""

from __future__ import annotations

import psycopg

from tests.waiting import wait_until

_OPEN = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND state LIKE 'idle in%'"
)


def wait_for_the_dead(database_url: str) -> None:
    """Return as soon as no session of this database has a transaction open and does nothing in it."""
    with psycopg.connect(database_url, autocommit=True) as session:
        wait_until(lambda: session.execute(_OPEN).fetchone() == (0,), "the end of what the killed one had begun")
