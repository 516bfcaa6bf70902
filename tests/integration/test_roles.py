"""Least rights: a consumer, a fleet and a reader each do all of their work, and nothing else, on a real server (L7)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from billing import admin
from billing.connections import postgres
from billing.core.clock import to_milliseconds
from billing.core.errors import Fatal, NotAllowed
from billing.core.settings import Settings
from billing.events.direct import DIRECT_EPOCH
from billing.fulfillment.delivery import Marker, Poison
from billing.fulfillment.log import BatchReport, UsageLog
from billing.fulfillment.postgres_log import PostgresUsageLog
from billing.schema import METADATA, privileges, roles
from billing.schema.migrate import migrate
from billing.schema.privileges import CONSUMER, FLEET, READER
from tests.fleet.harness import Fleet
from tests.integration.archiving import archive
from tests.integration.logins import login
from tests.terminal import Terminal
from tests.usage_events import delivered, paid_line, usage_event
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

Session = psycopg.Connection[Any]
#: What nobody but the owner may do, and the owner only by taking the guards away.
FORBIDDEN = (
    "UPDATE usage_history SET credits = 0 WHERE false",
    "DELETE FROM usage_history WHERE false",
    "TRUNCATE usage_history",
    "UPDATE archive.usage_history SET credits = 0 WHERE false",
    "INSERT INTO archive.usage_history SELECT * FROM usage_history",
    "DELETE FROM ledger_entry WHERE false",
    "UPDATE price SET credits_per_unit = 0",
    "UPDATE meter SET credits_per_unit = 1",
    "UPDATE stripe_generation SET reason = ''",
    "DELETE FROM stripe_resolution WHERE false",
    "DELETE FROM stripe_error_report WHERE false",
    "ALTER TABLE usage_history DISABLE TRIGGER ALL",
    "ALTER TABLE usage_history DETACH PARTITION usage_history_legacy",
    "DROP TABLE usage_history_legacy",
    "SELECT billing_make_usage_partition('usage_history_mine', 'DEFAULT')",
    "UPDATE billing_schema_version SET version_num = ''",
    "CREATE TABLE mine ()",
)


@pytest.fixture
def with_roles(database: Settings) -> Iterator[Settings]:
    """Give the database its roles."""
    migrate(database, with_roles=True)
    yield database
    admin.close(database)


@pytest.fixture
def archived(with_roles: Settings, log: UsageLog, clients: Callable[..., None]) -> Any:
    """Write a run of acme, and move its month to the archive."""
    clients("acme")
    now = datetime.now(UTC)
    event = usage_event(at_milliseconds=to_milliseconds(now), task_id="archived")
    log.write([delivered(event)])
    archive(with_roles, now)
    return event


def refuses(settings: Settings, *statements: str) -> None:
    """Check that a login may do none of these."""
    with postgres.connect(settings, autocommit=True) as connection:
        for statement in statements:
            with pytest.raises(InsufficientPrivilege):
                connection.execute(statement.encode())


def test_given_a_consumer_when_it_writes_every_kind_of_message_then_all_is_written_and_nothing_else_is_allowed(
    with_roles: Settings, session: Session, archived: Any
) -> None:
    """New, direct, duplicate, second settlement, newer epoch, archived, dead letter, marker: one login, one batch."""
    session.execute("INSERT INTO credit_grant (client_id, credits) VALUES ('acme', 100)")
    at = to_milliseconds(datetime.now(UTC)) - 400 * 86_400_000
    first, second = (usage_event(task_id="run", at_milliseconds=at) for _ in range(2))
    batch = [
        delivered(decoded)
        for decoded in (
            *(first, first, second, archived),
            usage_event(at_milliseconds=at, epoch=DIRECT_EPOCH, lines=[paid_line(shares=[(0, 30)])]),
            usage_event(at_milliseconds=at, epoch=7),
            Poison(reason="no event"),
            Marker(token=first.run_id, shard=1),
        )
        if not isinstance(decoded, Poison)
    ]
    batch.append(delivered(Poison(reason="no event"), b"{"))
    with login(with_roles, "IN ROLE", CONSUMER) as settings:
        log = PostgresUsageLog(lambda: postgres.connect(settings), shards=settings.shards)
        report = log.write(batch)
        again = log.write(batch)
        log.close()
        refuses(
            settings,
            *FORBIDDEN,
            "SELECT billing_make_usage_months(current_date)",
            "UPDATE client SET state = 'closed'",
            "DELETE FROM posting",
            "INSERT INTO credit_grant (client_id, credits) VALUES ('acme', 1)",
            "INSERT INTO ledger_entry (client_id, kind, credits) VALUES ('acme', 'grant', 1)",
            "SELECT body FROM dead_letter",
            "SELECT * FROM client",
            *(f"SELECT 1 FROM {name}" for name in ("webhook", "parked_task", "alert", "price")),
            *(f"SELECT 1 FROM {name}" for name in METADATA.tables if name.startswith("stripe_") or "meter" in name),
        )
    assert dataclasses.replace(report, rebuilds=()) == BatchReport(
        events=3, rows_inserted=3, duplicates=3, dead_letters=1, markers=1, postings=("acme",)
    )
    assert len(report.rebuilds) == 1
    assert (again.events, again.duplicates) == (0, 6)
    assert session.execute("SELECT epoch FROM client").fetchall() == [(7,)]
    assert session.execute("SELECT count(*) FROM recovery_marker").fetchall() == [(1,)]


def test_given_a_reader_when_it_makes_a_receipt_then_it_may_and_changes_nothing(
    with_roles: Settings, archived: Any
) -> None:
    """Every statement that writes is refused, on every table; so is what a reader need not see."""
    with login(with_roles, "IN ROLE", READER) as settings:
        lines = list(admin.receipt(settings, "acme"))
        assert [(line.run_id, line.credits) for line in lines] == [(archived.run_id, 10)]
        assert [part.rows for part in admin.partitions(settings).partitions if part.place == "archive"] == [1]
        assert admin.usage_totals(settings, ["acme"])[0].spent == 10
        with pytest.raises(NotAllowed, match=r"permission denied .*\(see: docs/postgresql.md\)"):
            admin.make_months(settings)
        admin.close(settings)
        refuses(
            settings, *FORBIDDEN, "SELECT * FROM webhook", "SELECT * FROM parked_task", "SELECT body FROM dead_letter"
        )
        for name in METADATA.tables:
            refuses(settings, f"INSERT INTO {name} DEFAULT VALUES", f"DELETE FROM {name}", f"TRUNCATE {name}")


def test_given_a_fleets_login_when_commands_and_loops_run_then_all_do_and_the_log_stays_as_it_is(
    with_roles: Settings, shop: Terminal
) -> None:
    """What is made daily is made; what moves a month, or changes the schema, is the owner's."""
    with login(with_roles, "IN ROLE", FLEET) as settings:
        url = settings.database_url
        for command in (
            ("client", "add", "bolt"),
            ("grant", "bolt", "100", "--key", "first"),
            ("price", "set", "kib", "2", "--unit", "KiB"),
            ("adjust", "credits", "bolt", "--", "-5"),
            ("balance", "bolt"),
            ("usage", "bolt"),
            ("receipt", "bolt"),
            ("reconcile",),
            ("partitions", "make"),
            ("partitions", "list"),
            ("sync", "status"),
            ("parked", "list"),
            ("alerts", "list"),
            ("explain", "task-1"),
        ):
            answer = shop.type(*command, BILLING_DATABASE_URL=url)
            assert answer.code == 0, (command, answer)
        shop.type("partitions", "detach", "2020-01", BILLING_DATABASE_URL=url).refused(2, "2020-01", "in neither place")
        shop.type("migrate", "--roles", BILLING_DATABASE_URL=url).refused(
            1, "--roles", "must be the owner of the tables"
        )
        refuses(settings, *FORBIDDEN)
        with postgres.connect(settings, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO stripe_increment (client_id, customer_id, event_name, period_start, period_end, units,"
                " identifier, event_at) VALUES ('bolt', 'cus_1', 'm', now(), now() + interval '1 day', 1, 'b1', now())"
            )
            connection.execute("UPDATE stripe_increment SET generation = 2, identifier = 'b2', reason = 'absent'")
            kept = connection.execute("SELECT identifier, reason FROM stripe_generation ORDER BY generation")
            assert kept.fetchall() == [("b1", ""), ("b2", "absent")]


def test_given_an_owner_who_may_make_no_roles_when_migrated_then_only_the_roles_are_refused(
    database: Settings, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a hosted service: the owner of a database, and nothing more."""
    with login(database) as settings:
        owner = settings.database_url.partition("://")[2].partition(":")[0]
        name = f"{session.info.dbname}_hosted"
        session.execute(f"CREATE DATABASE {name} OWNER {owner}")
        try:
            url = settings.database_url.replace(session.info.dbname, name)
            hosted = dataclasses.replace(settings, database_url=url)
            assert "0016_archive" in migrate(hosted)
            with monkeypatch.context() as patch:
                patch.setattr(roles, "ROLES", ("billing_nobody",))
                with pytest.raises(Fatal, match=r"--roles: 'billing_nobody': .*CREATE ROLE billing_nobody NOLOGIN"):
                    migrate(hosted, with_roles=True)
        finally:
            session.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_given_roles_when_a_later_migration_runs_then_theirs_is_renewed_where_they_were_given_it_only(
    database: Settings, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another database of the cluster lets nobody in unasked; what is no longer theirs is taken back."""
    may = "SELECT has_table_privilege(%s, 'usage_ever', 'SELECT'), has_table_privilege(%s, 'alert', 'DELETE')"
    for role in privileges.ROLES:
        session.execute(f"DO $$ BEGIN CREATE ROLE {role}; EXCEPTION WHEN duplicate_object THEN NULL; END $$".encode())
    migrate(database)
    assert session.execute(may, [READER, READER]).fetchone() == (False, False)
    migrate(database, with_roles=True)
    session.execute(f"REVOKE SELECT ON usage_ever FROM {READER}".encode())
    session.execute(f"GRANT DELETE ON alert TO {READER}".encode())
    assert migrate(database) == []
    assert session.execute(may, [READER, READER]).fetchone() == (True, False)


def test_given_a_fleets_login_when_its_processes_work_then_every_task_is_charged_and_nothing_is_denied(
    fleet: Fleet,
) -> None:
    """A worker and a fulfillment worker with its short loops; the tables are the owner's, who is not among them."""
    migrate(fleet.settings, with_roles=True)
    with login(fleet.settings, "IN ROLE", FLEET) as settings:
        fleet._environment["BILLING_DATABASE_URL"] = settings.database_url
        fleet.consumer(wait=False)
        fleet.worker(children=1)
        fleet.client("acme", 30)
        for result in [fleet.send("ok", "acme") for _ in range(3)]:
            result.get(timeout=120)
        wait_until(lambda: len(fleet.rows("acme")) == 3, "three rows in the history")
        wait_until(lambda: admin.alerts(fleet.settings), "an alert in the table")
        admin.grant(fleet.settings, "acme", 10, key="second")
        fleet.send("ok", "acme").get(timeout=120)
        wait_until(lambda: len(fleet.rows("acme")) == 4, "four rows in the history")
        fleet.stop()
    logs = "".join(path.read_text(errors="replace") for path in fleet.directory.glob("*.log"))
    assert "permission denied" not in logs
    assert "must be owner" not in logs
