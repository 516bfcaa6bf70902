"""L7: what is written stays. The database refuses UPDATE, DELETE and TRUNCATE, whoever asks and however."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg.errors import RestrictViolation

from billing.fulfillment.log import UsageLog
from tests.usage_events import delivered, usage_event

pytestmark = pytest.mark.integration

GUARDED = ("price", "ledger_entry", "usage_history")


@pytest.fixture
def tables(session: psycopg.Connection[Any], log: UsageLog, clients: Callable[..., None]) -> list[str]:
    """Return every append-only table and partition; each kind holds a row."""
    clients("acme")
    log.write([delivered(usage_event())])
    session.execute("INSERT INTO price VALUES ('page', 1, 10, 'page', now())")
    session.execute("INSERT INTO ledger_entry (client_id, kind, credits) VALUES ('acme', 'grant', 1)")
    partitions = session.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'usage_history'::regclass"
    )
    return [*GUARDED, *(row[0] for row in partitions.fetchall())]


def last_column(session: psycopg.Connection[Any], table: str) -> str:
    """Return a column of the table that a statement may name."""
    query = "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass ORDER BY attnum DESC LIMIT 1"
    row = session.execute(query, [table]).fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.parametrize("where", ["", " WHERE false"], ids=["all rows", "no row"])
@pytest.mark.parametrize("role", ["origin", "replica"])
def test_given_the_owner_when_it_changes_an_append_only_table_then_it_is_refused(
    session: psycopg.Connection[Any], tables: list[str], where: str, role: str
) -> None:
    """On the parent, on each partition, also where nothing matches, also with replication's exemption from triggers."""
    assert len(tables) > len(GUARDED) + 12
    session.execute(f"SET session_replication_role = {role}")
    for table in tables:
        column = last_column(session, table)
        for statement in (
            f"UPDATE {table} SET {column} = {column}{where}",
            f"DELETE FROM {table}{where}",
            f"TRUNCATE {table}",
            f"TRUNCATE {table} CASCADE",
        ):
            with pytest.raises(RestrictViolation, match="is refused: the table is append-only"):
                session.execute(statement)
    assert session.execute("SELECT count(*) FROM usage_history").fetchone() == (1,)


def test_given_other_ways_to_change_a_row_when_tried_then_they_are_refused(
    session: psycopg.Connection[Any], tables: list[str]
) -> None:
    month = f"usage_history_{datetime.now(UTC):%Y_%m}"
    assert month in tables
    for statement in (
        "INSERT INTO usage_history SELECT * FROM usage_history ON CONFLICT (run_id, line) DO UPDATE SET credits = 0",
        f"INSERT INTO {month} SELECT * FROM {month} ON CONFLICT (run_id, line) DO UPDATE SET credits = 0",
        "MERGE INTO usage_history USING client ON true WHEN MATCHED THEN DELETE",
        f"MERGE INTO {month} USING client ON true WHEN MATCHED THEN UPDATE SET credits = 0",
        "WITH gone AS (DELETE FROM usage_history RETURNING run_id) SELECT count(*) FROM gone",
        "TRUNCATE client CASCADE",
    ):
        with pytest.raises(RestrictViolation):
            session.execute(statement)
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        session.execute("DELETE FROM client")


def test_given_a_detached_month_when_it_is_changed_then_it_is_refused_still(
    session: psycopg.Connection[Any], tables: list[str]
) -> None:
    month = f"usage_history_{datetime.now(UTC):%Y_%m}"
    assert month in tables
    session.execute(f"ALTER TABLE usage_history DETACH PARTITION {month}")
    for statement in (f"UPDATE {month} SET credits = 0", f"DELETE FROM {month}", f"TRUNCATE {month}"):
        with pytest.raises(RestrictViolation):
            session.execute(statement)


def test_given_a_partition_attached_without_its_guard_when_months_are_made_then_it_is_guarded(
    session: psycopg.Connection[Any],
) -> None:
    month = f"usage_history_{datetime.now(UTC):%Y_%m}"
    session.execute(f"DROP TRIGGER billing_append_only ON {month}")
    session.execute("SELECT billing_make_usage_months(now()::date)")
    with pytest.raises(RestrictViolation):
        session.execute(f"DELETE FROM {month}")


def test_given_an_archived_month_when_the_column_of_modes_is_added_then_it_gets_it_too_and_stays_guarded(
    session: psycopg.Connection[Any], tables: list[str]
) -> None:
    """L7: a month that retention has detached may be attached again after the migration; no row of it may change."""
    month = f"usage_history_{datetime.now(UTC):%Y_%m}"
    assert month in tables
    bound_of = "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = %s::regclass"
    [(bound,)] = session.execute(bound_of, [month]).fetchall()
    session.execute(f"ALTER TABLE usage_history DETACH PARTITION {month}")
    session.execute("DROP SCHEMA archive CASCADE")  # a database of before the archive, and a month moved by hand
    session.execute("CREATE SCHEMA archive")
    session.execute(f"ALTER TABLE {month} SET SCHEMA archive")
    for table in ("usage_history", f"archive.{month}"):
        session.execute(f"ALTER TABLE {table} DROP COLUMN mode")
    migration = importlib.import_module("billing.schema.migrations.versions.0014_usage_modes")

    for statement in (migration.COLUMN, migration.ARCHIVED):
        session.execute(statement)

    with pytest.raises(RestrictViolation):
        session.execute(f"UPDATE archive.{month} SET credits = 0")
    session.execute(f"ALTER TABLE archive.{month} SET SCHEMA public")
    session.execute(f"ALTER TABLE usage_history ATTACH PARTITION {month} {bound}")
    assert session.execute("SELECT count(*), count(mode) FROM usage_history").fetchone() == (1, 0)
