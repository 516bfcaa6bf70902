"""What PostgreSQL's own list of sessions tells of a database: who is left of a killed process, and who waits."""

from __future__ import annotations

from typing import Final, LiteralString

import psycopg

from tests.waiting import wait_until

_OTHERS: Final = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND "


def wait_for_the_dead(database_url: str) -> None:
    """Return as soon as no session has a transaction open and does nothing in it.

    What a killed process had begun is undone then: the server learns of a death a moment later.
    """
    wait_until(lambda: not _is_any(database_url, "state LIKE 'idle in%'"), "the end of what the killed one had begun")


def is_any_waiting(database_url: str) -> bool:
    """Whether a session waits for a lock."""
    return _is_any(database_url, "wait_event_type = 'Lock'")


def _is_any(database_url: str, which: LiteralString) -> bool:
    with psycopg.connect(database_url, autocommit=True) as session:
        return session.execute(_OTHERS + which).rowcount > 0
