"""PostgreSQL: version, schema, months ahead, whose login it is, what it keeps through a crash, dead letters.

And what keeps the books append-only (L7): every table and partition that nobody may change refuses every change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from sqlalchemy import Connection, text

from billing.connections import postgres
from billing.core.settings import without_password
from billing.fulfillment.dead_letters import count_open
from billing.observability.doctor.finding import Finding, fail, ok, warn
from billing.schema.fleet import check_fleet
from billing.schema.guards import GUARDED, unguarded
from billing.schema.privileges import FLEET
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
        yield _guards(unguarded(connection))
        yield _login(connection)
        yield from _durability(connection)
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
_LOGIN: Final = """
    SELECT current_user AS login, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS is_super,
           pg_has_role(relowner, 'USAGE') AS is_owner
      FROM pg_class WHERE oid = 'usage_history'::regclass
"""
#: Tables that are named (L9).
_NAMED_MAX: Final = 5


def _guards(open_: Sequence[str]) -> Finding:
    if not open_:
        books = f"{len(GUARDED)} tables and every partition, the archive's too"
        return ok("PostgreSQL", f"nothing may be changed or deleted in {books} (L7)")
    more = ", …" if len(open_) > _NAMED_MAX else ""
    listed = ", ".join(open_[:_NAMED_MAX])
    advice = "SELECT billing_make_append_only('<table>'), as the owner; find out who took the trigger away"
    return fail("PostgreSQL", f"{len(open_)} tables may be changed (L7): {listed}{more}", advice)


def _login(connection: Connection) -> Finding:
    """Warn of a login that may take triggers away: what runs needs no owner."""
    found = connection.execute(text(_LOGIN)).one()
    what = "a superuser" if found.is_super else "the owner of the tables" if found.is_owner else ""
    if what:
        advice = f"billing migrate --roles, then run the fleet as a login in {FLEET}; keep this one for migrations"
        return warn("PostgreSQL", f"the login {found.login!r} is {what}: it could change what nobody may", advice)
    return ok("PostgreSQL", f"the login {found.login!r} owns nothing of billing's")


def _durability(connection: Connection) -> Iterator[Finding]:
    """Check that what is committed outlives a crash: an event leaves RabbitMQ once its row is committed (L3)."""
    weak = [
        f"{name} is off"
        for name in ("fsync", "full_page_writes", "synchronous_commit")
        if connection.execute(text(f"SHOW {name}")).scalar_one() == "off"
    ]
    if weak:
        seen = f"{', '.join(weak)}: a crash loses rows whose events are acked"
        yield warn("PostgreSQL", seen, "switch it on, for billing's database and logins at least")
    else:
        yield ok("PostgreSQL", "what it has committed is on disk (fsync, synchronous_commit)")
