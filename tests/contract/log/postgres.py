"""The store of `PostgresUsageLog`: the real tables, looked at with the owner's powers."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import psycopg

from billing.catalog.clients import add_client
from billing.connections import postgres
from billing.core.settings import Settings
from billing.fulfillment.log import UsageLog
from billing.fulfillment.postgres_log import PostgresUsageLog
from tests.contract.log.store import Letter, Rollups, Row, Spent
from tests.usage_events import paid_line

_ROWS = """
    SELECT run_id, line, settlement_id, client_id, correlation_id, root_id, task, attempt, sku, quantity, credits,
           grants, epoch, price_version, late, mode, (extract(epoch FROM submitted_at) * 1000)::bigint AS submitted_at,
           (extract(epoch FROM occurred_at) * 1000)::bigint AS occurred_at
    FROM usage_history ORDER BY run_id, line
"""
_ROLLUPS = "SELECT client_id, sku, (extract(epoch FROM hour) * 1000)::bigint, credits, quantity FROM usage_rollup"
_END_OTHERS = """
    SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class PostgresStore:
    """A migrated database of a test's own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session = psycopg.connect(settings.database_url, autocommit=True)
        self._logs: list[UsageLog] = []

    def log(self) -> UsageLog:
        """Make a log."""
        settings = self._settings
        self._logs.append(PostgresUsageLog(lambda: postgres.connect(settings), shards=settings.shards))
        return self._logs[-1]

    def log_without_server(self) -> UsageLog:
        """Make a log that connects to a port at which nobody listens."""
        nowhere = Settings(database_url="postgresql://billing:secret@127.0.0.1:1/billing", database_timeout_seconds=1)
        return PostgresUsageLog(lambda: postgres.connect(nowhere), shards=nowhere.shards)

    def add_clients(self, *client_ids: str) -> None:
        """Add clients."""
        engine = postgres.engine(self._settings)
        with engine.begin() as connection:
            for client_id in client_ids:
                add_client(connection, client_id, self._settings.shards)
        engine.dispose()

    def rows(self) -> list[Row]:
        """Read the history."""
        with self._session.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            found = cursor.execute(_ROWS).fetchall()
        return [Row(**row | {"grants": _shares(row["grants"])}) for row in found]

    def rollups(self) -> Rollups:
        """Read the rollups."""
        return {(row[0], row[1], row[2]): (row[3], row[4]) for row in self._session.execute(_ROLLUPS).fetchall()}

    def spent(self) -> Spent:
        """Read the grant sums."""
        found = self._session.execute("SELECT client_id, grant_id, credits FROM grant_spent").fetchall()
        return {(row[0], row[1]): row[2] for row in found}

    def letters(self) -> list[Letter]:
        """Read the dead letters."""
        found = self._session.execute("SELECT body, reason, queue FROM dead_letter ORDER BY body").fetchall()
        return [Letter(*row) for row in found]

    def markers(self) -> list[tuple[uuid.UUID, int]]:
        """Read the markers."""
        return self._session.execute("SELECT token, shard FROM recovery_marker ORDER BY 1").fetchall()

    def cut(self) -> None:
        """End every other session of this database."""
        self._session.execute(_END_OTHERS)

    def make_unready(self) -> None:
        """Rename a table."""
        self._session.execute("ALTER TABLE usage_rollup RENAME TO taken_away")

    def make_ready(self) -> None:
        """Rename it back."""
        self._session.execute("ALTER TABLE taken_away RENAME TO usage_rollup")

    def refused(self) -> Mapping[str, dict[str, object]]:
        """Return values that only the database refuses, each in an otherwise good event."""
        return {
            "quantity past bigint": {"lines": (paid_line(quantity=2**63),)},
            "attempt past integer": {"attempt": 2**31},
            "a NUL byte": {"task": "worker\x00tasks"},
            "a lone surrogate": {"root_id": "\ud800"},
            "an impossible time": {"occurred_at": 10**17},
            "a negative quantity": {"lines": (paid_line(quantity=-1),)},
            "more lines than smallint": {"lines": (paid_line(),) * 32_769},
        }

    def close(self) -> None:
        """Close every log, and the session."""
        for log in self._logs:
            log.close()
        self._session.close()


def _shares(grants: list[dict[str, Any]]) -> tuple[tuple[int, int], ...]:
    return tuple((share["grant"], share["credits"]) for share in grants)
