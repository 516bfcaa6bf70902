"""Migrations make exactly the tables of `tables.py`; doing it again, or twice at once, is harmless."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from billing.connections import postgres
from billing.core.errors import Fatal, InvalidValue, Unreachable
from billing.core.settings import Settings
from billing.schema import METADATA
from billing.schema import migrate as schema
from billing.schema.fleet import check_fleet

pytestmark = pytest.mark.integration


@pytest.fixture
def empty(database: Settings) -> Settings:
    """Return settings that name this test's database, which is emptied."""
    with psycopg.connect(database.database_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public, archive CASCADE")
        connection.execute("CREATE SCHEMA public")
    return database


def test_given_a_migrated_database_when_compared_then_it_is_what_the_metadata_says(engine: sqlalchemy.Engine) -> None:
    """Tables, columns, types, defaults, nullability, keys, indexes and checks are equal on both sides."""

    def ours(found: Any, name: str | None, kind: str, reflected: bool, other: Any) -> bool:  # noqa: FBT001
        return kind != "table" or name in METADATA.tables

    options = {"compare_type": True, "compare_server_default": True, "include_object": ours}
    with engine.connect() as connection:
        inspector = sqlalchemy.inspect(connection)
        assert compare_metadata(MigrationContext.configure(connection, opts=options), METADATA) == []
        for table in METADATA.tables.values():
            columns = {column["name"]: column for column in inspector.get_columns(table.name)}
            assert list(columns) == [column.name for column in table.columns], table.name
            for column in table.columns:
                found = columns[column.name]
                assert found["nullable"] == column.nullable, f"{table.name}.{column.name}"
                dialect = connection.dialect
                assert found["type"].compile(dialect) == column.type.compile(dialect), f"{table.name}.{column.name}"
                assert (found.get("identity") is None) == (column.identity is None), f"{table.name}.{column.name}"
            primary_key = inspector.get_pk_constraint(table.name)
            assert primary_key["constrained_columns"] == [column.name for column in table.primary_key], table.name
            assert primary_key["name"] == f"{table.name}_pkey"
            checks = {check["name"] for check in inspector.get_check_constraints(table.name)}
            assert checks == {
                constraint.name
                for constraint in table.constraints
                if isinstance(constraint, sqlalchemy.CheckConstraint)
            }


def test_given_an_empty_database_when_migrated_then_every_step_is_named_and_a_second_time_changes_nothing(
    empty: Settings,
) -> None:
    assert schema.current(empty) is None
    first = schema.migrate(empty)
    steps = [
        "0001_catalog_and_ledger",
        "0002_usage_history",
        "0003_sums_and_operations",
        "0004_stripe",
        "0005_operations",
        "0006_grant_terms",
        "0007_grant_schedules",
        "0008_top_ups",
        "0009_postings",
        "0010_repairs",
        "0011_corruptions",
        "0012_posting_facts",
        "0013_parked_tasks",
        "0014_usage_modes",
        "0015_dead_letter_states",
        "0016_archive",
        "0017_usage_corrections",
        "0018_usage_root_index",
        "0019_unplanned_rollups",
        "0020_sync_protocol",
        "0021_sync_alerts",
        "0022_watching",
        "0023_stripe_books",
    ]
    assert first[: len(steps)] == steps
    assert schema.current(empty) == schema.head() == steps[-1]
    assert schema.migrate(empty) == []


def test_given_an_empty_database_when_migrated_four_times_at_once_then_one_does_it(empty: Settings) -> None:
    with ThreadPoolExecutor(4) as pool:
        applied = list(pool.map(schema.migrate, [empty] * 4))
    assert sorted(map(len, applied))[:3] == [0, 0, 0]
    assert max(map(len, applied)) > 3
    with psycopg.connect(empty.database_url) as connection:
        assert connection.execute("SELECT count(*) FROM fleet").fetchone() == (1,)


def test_given_a_migration_that_fails_when_it_ends_then_nothing_half_done_is_left(empty: Settings) -> None:
    with psycopg.connect(empty.database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE usage_rollup (in_the_way text)")  # the last migration makes one
        with pytest.raises(sqlalchemy.exc.ProgrammingError):
            schema.migrate(empty)
        tables = connection.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        assert tables.fetchall() == [("usage_rollup",)]
        connection.execute("DROP TABLE usage_rollup")
    assert schema.migrate(empty)


def test_given_a_database_that_a_newer_version_migrated_when_migrated_then_it_is_refused(
    database: Settings, session: psycopg.Connection[Any]
) -> None:
    session.execute("UPDATE billing_schema_version SET version_num = '9999_from_the_future'")
    with pytest.raises(Fatal, match=r"'9999_from_the_future': must be a migration that this version"):
        schema.migrate(database)


def test_given_clients_when_a_fixed_number_changes_then_it_is_refused_with_field_value_and_rule(
    database: Settings, session: psycopg.Connection[Any]
) -> None:
    changed = Settings(database_url=database.database_url, shards=32)
    assert schema.migrate(changed) == []  # no client yet: it may change
    assert schema.migrate(database) == []
    session.execute("INSERT INTO client (client_id, shard) VALUES ('acme', 1)")
    with pytest.raises(InvalidValue, match=r"billing_shards: 32: must stay 64"):
        schema.migrate(changed)
    engine = postgres.engine(Settings(database_url=database.database_url, usage_queues=9))
    with engine.connect() as connection, pytest.raises(InvalidValue, match=r"billing_usage_queues: 9: must stay 4"):
        check_fleet(connection, Settings(usage_queues=9))
    engine.dispose()


def test_given_no_server_when_migrated_then_one_line_says_so_without_the_password() -> None:
    nowhere = Settings(database_url="postgresql://billing:secret@127.0.0.1:1/billing", database_timeout_seconds=1)
    with pytest.raises(Unreachable, match=r"^billing_database_url: .*127\.0\.0\.1:1/billing.*$") as caught:
        schema.migrate(nowhere)
    assert "secret" not in str(caught.value)
