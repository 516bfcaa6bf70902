"""PostgreSQL: its version and schema, the months ahead, what keeps the log append-only (L7), dead letters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import text

from billing.connections import postgres
from billing.core.settings import without_password
from billing.fulfillment.dead_letters import count_open
from billing.observability.doctor.finding import Finding, fail, ok, warn
from billing.schema.fleet import check_fleet
from billing.task.runtime import Runtime

_POSTGRES_VERSION_MIN: Final = 15
_MONTHS_AHEAD_MIN: Final = 2


def examine_postgres(runtime: Runtime) -> Iterator[Finding]:
    """Look at the database."""
    # With Alembic, which says in the log of whoever imports it that it is there: as of a Flower that starts.
    from billing.schema import migrate  # noqa: PLC0415

    settings = runtime.settings
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        number = int(connection.execute(text("SHOW server_version_num")).scalar_one())
        major = number // 10_000
        seen = f"version {major} at {without_password(settings.database_url)}"
        if major < _POSTGRES_VERSION_MIN:
            yield fail("PostgreSQL", seen, f"use version {_POSTGRES_VERSION_MIN} or later")
        else:
            yield ok("PostgreSQL", seen)
        at, wanted = migrate.current(settings), migrate.head()
        if at != wanted:
            yield fail(
                "PostgreSQL", f"schema is at {at or 'nothing'}, this version needs {wanted}", "run: billing migrate"
            )
            return
        yield ok("PostgreSQL", f"schema is at {at}")
        check_fleet(connection, settings)
        months = connection.execute(text(MONTHS_AHEAD)).scalar_one()
        verdict = ok if months >= _MONTHS_AHEAD_MIN else fail
        yield verdict("PostgreSQL", f"usage history has months for {months} months ahead", "run: billing migrate")
        unguarded = connection.execute(text(_UNGUARDED)).scalar_one()
        verdict = fail if unguarded else ok
        yield verdict("PostgreSQL", f"{unguarded} partitions may be changed (L7)", "run: billing migrate")
        letters = count_open(connection)
        verdict = warn if letters else ok
        yield verdict(
            "PostgreSQL", f"{letters} dead letters{' are open' if letters else ''}", "billing dead-letters list"
        )


MONTHS_AHEAD: Final = """
    SELECT count(*) FROM pg_inherits
      JOIN pg_class ON pg_class.oid = inhrelid
     WHERE inhparent = 'usage_history'::regclass
       AND relname ~ '^usage_history_[0-9]{4}_[0-9]{2}$'
       AND relname > 'usage_history_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')
"""
#: Partitions without the three triggers that refuse UPDATE, DELETE and TRUNCATE.
_UNGUARDED: Final = """
    SELECT count(*) FROM pg_inherits
     WHERE inhparent IN ('usage_history'::regclass, 'archive.usage_history'::regclass)
       AND (SELECT coalesce(bit_or(tgtype::int), 0) & 56 FROM pg_trigger
             WHERE tgrelid = inhrelid AND tgenabled = 'A' AND NOT tgisinternal) <> 56
"""
