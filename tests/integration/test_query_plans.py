"""What is asked of a long history is found by an index: no statement reads a month, or all rollups, from end to end.

The statements are those that the code sends, caught on their way and explained over a history of a year; so they are
counted, not timed. What reads a client's whole history by intent (reconciliation) is read by client, too.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

import psycopg
import pytest
import sqlalchemy
from psycopg import sql

from benchmarks.history import READER, READER_RUNS, History, make_history, writers
from billing import admin
from billing.connections import postgres
from billing.core.clock import SystemClock
from billing.core.settings import Settings
from billing.embedded.stack import Stack
from billing.explaining.explain import explain
from billing.fulfillment.postgres_log import PostgresUsageLog
from billing.fulfillment.reading import usage_sums
from billing.reconciliation.reading import invoice_facts, log_facts
from billing.recovery.facts import logged_runs
from billing.sinks.sync.planning.planner import Planner
from billing.sinks.sync.postgres.planning import PostgresPlanningLog
from billing.task.charged import is_charged, told_charges
from billing.task.runtime import Runtime
from tests.integration.syncing import CALENDAR
from tests.usage_events import delivered, usage_event
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

#: A client with a few lines in each month.
CLIENT = "client-60"
#: Of fewer rows than these, a scan is no sign of anything.
FEW_ROWS = 1_000
READS = ("SELECT", "WITH", "UPDATE")


class Sent(NamedTuple):
    """A statement as it was sent."""

    statement: str
    values: Any


@pytest.fixture(scope="module")
def history(stack: Stack, database_template: str) -> Iterator[History]:
    """Make a database with a history of twelve months, for all tests of this file."""
    name = sql.Identifier(f"test_{uuid.uuid4().hex[:12]}")
    with psycopg.connect(stack.postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, sql.Identifier(database_template)))
        settings = Settings(
            database_url=stack.postgres.url_of(name.as_string().strip('"')),
            redis_url=stack.endpoints.redis_url,
            database_timeout_seconds=60.0,
        )
        yield make_history(settings, rows=50_000, clients=100, now=datetime.now(UTC))
        admin.close(settings)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@contextmanager
def catching() -> Iterator[list[Sent]]:
    """Within, every statement that SQLAlchemy sends is noted."""
    sent: list[Sent] = []

    def note(_: Any, __: Any, statement: str, values: Any, ___: Any, many: bool) -> None:  # noqa: FBT001
        if not many:
            sent.append(Sent(statement, values))

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", note)


def scanned(settings: Settings, sent: Sequence[Sent]) -> dict[str, str]:
    """Return which long tables these statements would read from end to end, each with one of the statements."""
    found: dict[str, str] = {}
    with psycopg.connect(settings.database_url, autocommit=True) as session:
        long = {
            row[0]
            for row in session.execute(
                "SELECT relname FROM pg_class WHERE relname ~ '^usage_' AND reltuples > %s", [FEW_ROWS]
            ).fetchall()
        }
        assert len(long) >= 12, "the history is not as long as this test needs"
        for statement, values in sent:
            row = session.execute(b"EXPLAIN (FORMAT JSON) " + statement.encode(), values).fetchone()
            assert row is not None
            for node in _nodes(row[0][0]["Plan"]):
                if node["Node Type"] == "Seq Scan" and node["Relation Name"] in long:
                    found[node["Relation Name"]] = statement
    return found


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


def _reads(sent: Sequence[Sent]) -> list[Sent]:
    return [one for one in sent if one.statement.strip().startswith(READS) and "FROM pg_" not in one.statement]


def test_given_a_made_history_then_it_is_one_that_billing_could_have_written(history: History) -> None:
    """Its ids are UUIDv7 of their time, its sums are those of its rows, and the reader's month is whole."""
    with psycopg.connect(history.settings.database_url) as session:
        rows = session.execute(
            "SELECT count(*), count(DISTINCT client_id) > 50, count(*) FILTER (WHERE substr(run_id::text, 15, 1) <> '7'"
            " OR substr(run_id::text, 20, 1) <> '8' OR run_id < billing_run_id_bound(submitted_at - interval '1 ms')"
            " OR run_id > billing_run_id_bound(submitted_at + interval '1 ms')) FROM usage_history"
        ).fetchone()
        sums = session.execute(
            "SELECT (SELECT sum(credits) FROM usage_history), (SELECT sum(credits) FROM usage_rollup),"
            " (SELECT sum(credits) FROM grant_spent), (SELECT count(*) FROM usage_rollup WHERE unplanned)"
        ).fetchone()
    assert rows == (history.rows, True, 0)
    assert sums is not None
    assert sums[0] == sums[1] == sums[2]
    assert sums[3] == 0
    month = [line.run_id for line in admin.receipt(history.settings, READER, history.month, history.month_end)]
    assert len(set(month)) == len(month) == READER_RUNS


def _receipt(history: History) -> object:
    return [line.credits for line in admin.receipt(history.settings, CLIENT, history.month, history.month_end)]


def _page(history: History) -> object:
    return admin.usage(history.settings, CLIENT, limit=20)


def _asked(ask: Callable[[sqlalchemy.Connection], object]) -> Callable[[History], object]:
    def asked(history: History) -> object:
        engine = postgres.engine(history.settings)
        try:
            with engine.connect() as connection:
                return ask(connection)
        finally:
            engine.dispose()

    return asked


def _story(history: History) -> object:
    """Explain a task by its id, and its run by the run's."""
    row = admin.usage(history.settings, CLIENT, limit=1)[0]
    runtime = Runtime(lambda: history.settings)
    try:
        stories = [explain(runtime, name) for name in (row.correlation_id, str(row.run_id))]
    finally:
        runtime.close()
    assert [story.run_ids for story in stories] == 2 * [(row.run_id,)]
    return stories


RUNS = [uuid.uuid4() for _ in range(50)]
QUESTIONS: dict[str, Callable[[History], object]] = {
    "receipt": _receipt,
    "page": _page,
    "story": _story,
    "sums of a client": _asked(lambda connection: usage_sums(connection, [CLIENT])),
    "log facts of a client": _asked(lambda connection: log_facts(connection, [CLIENT])),
    "invoice facts of a client": _asked(
        lambda connection: invoice_facts(connection, [CLIENT], log_facts(connection, [CLIENT]))
    ),
    "logged runs": _asked(lambda connection: [logged_runs(connection, RUNS)]),
    "is charged": _asked(lambda connection: [is_charged(connection, RUNS[0])]),
    "told charges": _asked(lambda connection: [told_charges(connection, [(CLIENT, run) for run in RUNS])]),
}


@pytest.mark.parametrize("ask", QUESTIONS.values(), ids=QUESTIONS)
def test_given_a_long_history_when_it_is_asked_then_no_month_is_read_from_end_to_end(
    history: History, ask: Callable[[History], object]
) -> None:
    with catching() as sent:
        assert ask(history)
    reads = [one for one in _reads(sent) if "usage_" in one.statement]
    assert reads
    assert scanned(history.settings, reads) == {}


def test_given_few_lines_in_a_month_when_a_receipt_is_read_then_it_takes_few_statements(history: History) -> None:
    """Each is planned over all months of the history, which takes longer than to find what it is for."""
    with catching() as sent:
        assert _receipt(history)
    assert len(_reads(sent)) <= 25  # one day at a time they were three a day


def test_given_a_long_history_that_is_planned_when_a_little_is_used_then_a_plan_reads_no_rollup_but_those(
    history: History,
) -> None:
    engine = postgres.engine(history.settings)
    with engine.begin() as connection:
        for hours in range(3):
            used = sqlalchemy.text(
                "INSERT INTO usage_rollup (client_id, sku, hour, credits, quantity)"
                " SELECT client_id, 'page', date_trunc('hour', now()) - :hours * interval '1 hour', 10, 1"
                " FROM unnest(CAST(:clients AS text[])) AS client_id"
            )
            connection.execute(used, {"clients": writers()[:20], "hours": hours})
    with catching() as sent:
        assert Planner(PostgresPlanningLog(engine), SystemClock(), CALENDAR).plan().increments >= 20
    engine.dispose()
    reads = [one for one in _reads(sent) if "usage_" in one.statement]
    assert reads
    assert scanned(history.settings, reads) == {}


class Recording(psycopg.Cursor[Any]):
    """A cursor that notes what it sends."""

    sent: list[Sent]

    def execute(self, query: Any, params: Any = None, **options: Any) -> Recording:
        """Note, and execute."""
        if isinstance(query, str) and "usage_incoming" not in query:
            self.sent.append(Sent(query, params))
        super().execute(query, params, **options)
        return self


def test_given_a_long_history_when_a_batch_is_written_then_nothing_is_read_from_end_to_end(history: History) -> None:
    """Duplicates, direct events and events of an older epoch included."""
    sent: list[Sent] = []

    def connect() -> psycopg.Connection[Any]:
        connection = postgres.connect(history.settings)
        connection.cursor_factory = type("Noting", (Recording,), {"sent": sent})
        return connection

    log = PostgresUsageLog(connect, shards=history.settings.shards)
    events = [usage_event(client) for client in writers()[:50]]
    direct = [usage_event(client, epoch=0) for client in writers()[:5]]
    log.write([delivered(event) for event in events])
    assert log.write([delivered(event) for event in [*events, *direct]]).duplicates == 50
    log.close()
    reads = [one for one in sent if one.statement.strip().startswith(("SELECT", "WITH", "INSERT", "UPDATE"))]
    assert any("usage_history" in one.statement for one in reads)
    assert scanned(history.settings, [one for one in reads if "usage_" in one.statement]) == {}


def test_given_rollups_that_each_batch_touches_again_then_their_new_versions_stay_beside_the_old_ones(
    database: Settings, session: psycopg.Connection[Any], clients: Callable[..., None]
) -> None:
    """No index is written then (heap-only tuples): no index may name a column that changes with each batch."""
    names = [f"client-{number}" for number in range(20)]
    clients(*names)
    log = PostgresUsageLog(lambda: postgres.connect(database), shards=database.shards)
    at = 1_790_000_000_000
    for number in range(21):
        log.write([delivered(usage_event(name, f"task-{number}", at_milliseconds=at)) for name in names])
    log.close()  # what a session has counted is told when it ends

    def counts() -> tuple[int, int]:
        row = session.execute(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'usage_rollup'"
        ).fetchone()
        assert row is not None
        return row[0], row[1]

    wait_until(lambda: counts()[0] == 20 * 20, "every update is counted")
    assert counts()[1] >= 380
