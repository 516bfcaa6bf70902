"""A reading of the fleet finds what is open by an index, however long histories have become (L9).

The statements are those that it sends, caught on their way and explained over long tables: counted, not timed.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg import sql

from benchmarks.history import make_history
from billing import admin
from billing.core.clock import SystemClock
from billing.core.settings import Settings
from billing.embedded.stack import Stack
from billing.observability.overview import log_statements
from billing.observability.overview.log_side import LogSide
from billing.sinks.sync.telling.status import read_status
from billing.task.runtime import Runtime
from tests.integration.test_query_plans import Sent, _nodes, catching

pytestmark = pytest.mark.integration

#: What gets longer with time, and is never read from end to end.
LONG = "^(usage_|alert$|dead_letter$|parked_task$|stripe_increment$)"
ROWS = 20_000
#: Half of them: the end of a history is read, never all of it.
READ_MAX = 10_000

_ENDED = """
INSERT INTO stripe_increment (client_id, customer_id, event_name, period_start, period_end, units, event_at,
    identifier, state, planned_at, last_attempt_at, confirmed_at, checked_at)
SELECT 'reader', 'cus_reader', 'billing_credits', now() - interval '30 days', now(), 10,
    now() - n * interval '1 minute',
    'u1:' || n, CASE n WHEN 1 THEN 'pending' WHEN 2 THEN 'sent' WHEN 3 THEN 'written_off' ELSE 'confirmed' END,
    now() - n * interval '1 minute', now(), now(), now() FROM generate_series(1, {rows}) AS n;
INSERT INTO alert (client_id, kind, threshold_percent, available, granted, source, occurred_at, delivery, announced_at)
SELECT 'reader', 'low_balance', 20, 1, 100, n::text, now(), 'delivered', now() FROM generate_series(1, {rows}) AS n;
INSERT INTO dead_letter (digest, body, reason, queue, state, ended_at)
SELECT sha256(n::text::bytea), '', 'a test', 'queue', 'replayed', now() FROM generate_series(1, {rows}) AS n;
INSERT INTO parked_task (run_id, client_id, task, task_id, sku, credits, available, body, content_type,
    content_encoding, headers, properties, exchange, routing_key, state, times, parked_at, expires_at, ended_at)
SELECT gen_random_uuid(), 'reader', 'task', n::text, 'page', 1, 0, '', '', '', '{{}}', '{{}}', '', '', 'started', 1,
    now(), now(), now() FROM generate_series(1, {rows}) AS n;
"""


@pytest.fixture(scope="module")
def long_books(stack: Stack, database_template: str) -> Iterator[Settings]:
    """Make a database with a year of history, and much that has come to its end."""
    name = sql.Identifier(f"test_{uuid.uuid4().hex[:12]}")
    with psycopg.connect(stack.postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, sql.Identifier(database_template)))
        settings = Settings(
            database_url=stack.postgres.url_of(name.as_string().strip('"')), database_timeout_seconds=60.0
        )
        make_history(settings, rows=50_000, clients=100, now=datetime.now(UTC))
        with psycopg.connect(settings.database_url, autocommit=True) as session:
            session.execute("SET session_replication_role = replica")
            session.execute(_ENDED.format(rows=ROWS).encode())
            session.execute("VACUUM (ANALYZE)")
        yield settings
        admin.close(settings)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def read_too_much(settings: Settings, sent: list[Sent]) -> dict[str, int]:
    """Return the statements that read more than the bound of the long tables' rows, by whichever way, and how many."""
    found: dict[str, int] = {}
    with psycopg.connect(settings.database_url, autocommit=True) as session:
        rows = session.execute(
            "SELECT relname FROM pg_class WHERE relname ~ %s AND relkind = 'r' AND reltuples > 1000", [LONG]
        ).fetchall()
        long = {row[0] for row in rows}
        assert {"alert", "dead_letter", "parked_task", "stripe_increment"} <= long
        assert len(long) > 12
        for statement, values in sent:
            row = session.execute(b"EXPLAIN (ANALYZE, FORMAT JSON) " + statement.encode(), values).fetchone()
            assert row is not None
            nodes = [node for node in _nodes(row[0][0]["Plan"]) if node.get("Relation Name") in long]
            read = sum(
                (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in nodes
            )
            if read > READ_MAX or any(node["Node Type"] == "Seq Scan" for node in nodes):
                found[statement] = read
    return found


def reads(sent: list[Sent]) -> list[Sent]:
    """Return what reads tables."""
    return [one for one in sent if one.statement.strip().startswith(("SELECT", "WITH")) and "FROM" in one.statement]


def test_given_long_histories_then_a_reading_of_them_reads_none_from_end_to_end(
    long_books: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_statements, "SMALL_BYTES", 0)
    side = LogSide(long_books, SystemClock())
    with catching() as sent:
        log, sync = side.read(), side.read_sync()
    side.close()
    assert (log.dead_letters, log.parked_tasks, log.deliveries) == (0, 0, 0)
    assert log.log_last_at is not None
    counts = {one.state: (one.count, one.exact) for one in sync.increments if one.count}
    assert counts == {
        "pending": (1, True),
        "sent": (1, True),
        "written_off": (1, True),
        "confirmed": (ROWS - 3, False),
    }
    assert sync.last_planned_at is not None
    assert len(reads(sent)) >= 14
    assert read_too_much(long_books, reads(sent)) == {}


def test_given_a_small_table_of_increments_then_they_are_counted_one_by_one(long_books: Settings) -> None:
    side = LogSide(long_books, SystemClock())
    sync = side.read_sync()
    side.close()
    (confirmed,) = [one for one in sync.increments if one.state == "confirmed"]
    assert (confirmed.count, confirmed.units, confirmed.exact) == (ROWS - 3, (ROWS - 3) * 10, True)
    assert confirmed.oldest_at is not None


def test_given_long_histories_then_the_doctor_reads_what_is_open_of_the_report_by_its_index(
    long_books: Settings,
) -> None:
    runtime = Runtime(lambda: long_books)
    with catching() as sent, runtime.engine.connect() as connection:
        status = read_status(connection, datetime.now(UTC), long_books, only_open=True)
    runtime.close()
    assert {found.state: found.increments for found in status.states if found.increments} == {"pending": 1}
    assert read_too_much(long_books, reads(sent)) == {}
