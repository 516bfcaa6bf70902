"""Brings a database to this version's schema, and keeps the history's partitions a year ahead.

All of it is one transaction under one advisory lock: two migrations at once, or a second one, change nothing more,
and one that fails leaves nothing half done. The role that migrates owns the tables; consumers may only use them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from sqlalchemy import Connection, func, select, text

from billing.connections import postgres
from billing.core.errors import Fatal
from billing.core.settings import Settings
from billing.schema.advisory import Guard
from billing.schema.fleet import record_fleet
from billing.schema.partitions import make_partitions
from billing.schema.roles import make_roles, renew_roles

#: Not Alembic's own name, which the application's migrations may use in the same database.
VERSION_TABLE: Final = "billing_schema_version"

#: L9: how long a migration waits for another one, or for a table that is in use.
_LOCK_TIMEOUT: Final = "60s"


def migrate(settings: Settings, *, now: datetime | None = None, with_roles: bool = False) -> list[str]:
    """Apply what is missing; return the names of the migrations applied, the partitions and the roles made.

    Raises `Unreachable`, `InvalidValue` (a fixed number was changed) or `Fatal` (the database is newer than this code).
    """
    engine = postgres.engine(settings, pool_size=1)
    try:
        with postgres.reaching(settings), engine.begin() as connection:
            connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
            # Building an index over the whole history takes as long as it takes.
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(select(func.pg_advisory_xact_lock(Guard.MIGRATE, 0)))
            applied = _upgrade(connection)
            record_fleet(connection, settings)
            applied += make_partitions(connection, now or datetime.now(UTC))
            if with_roles:
                return applied + make_roles(connection)
            renew_roles(connection)
            return applied
    finally:
        engine.dispose()


def current(settings: Settings) -> str | None:
    """Return the migration that the database is at, or None if it was never migrated."""
    engine = postgres.engine(settings, pool_size=1)
    try:
        with postgres.reaching(settings), engine.connect() as connection:
            return _revision(connection)
    finally:
        engine.dispose()


def head() -> str:
    """Return the last migration that this code knows."""
    found = ScriptDirectory.from_config(_config()).get_current_head()
    if found is None:  # pragma: no cover - the package always carries migrations
        message = "billing.schema.migrations: the installation carries no migrations"
        raise Fatal(message)
    return found


def _upgrade(connection: Connection) -> list[str]:
    config = _config()
    config.attributes["connection"] = connection
    before = _revision(connection)
    scripts = ScriptDirectory.from_config(config)
    try:
        missing = [script.revision for script in scripts.iterate_revisions("head", before or "base")]
    except RevisionError as error:
        message = f"database: {before!r}: must be a migration that this version of celery-billing knows"
        raise Fatal(message) from error
    if missing:
        command.upgrade(config, "head")
    return missing[::-1]


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
