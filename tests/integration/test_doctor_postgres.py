"""Doctor's look at PostgreSQL: whose login it is, what keeps the books append-only, what a crash would lose."""

from __future__ import annotations

import dataclasses

import psycopg
import pytest

from billing.core.settings import Settings
from billing.observability.doctor.finding import Finding, Verdict
from billing.observability.doctor.postgres import examine_postgres
from billing.observability.laws.check import check_laws
from billing.observability.laws.reading import read_laws
from billing.observability.liveness import seen
from billing.schema.migrate import migrate
from billing.schema.privileges import FLEET
from billing.task.runtime import Runtime
from tests.integration.logins import login

pytestmark = pytest.mark.integration


def examined(settings: Settings, about: str) -> Finding:
    """Return the one finding about something; whatever is not ok says what to do."""
    runtime = Runtime(lambda: settings)
    try:
        findings = list(examine_postgres(runtime))
    finally:
        runtime.close()
    assert all(finding.advice for finding in findings if finding.verdict is not Verdict.OK)
    (found,) = [finding for finding in findings if about in finding.seen]
    return found


def test_an_owner_is_warned_of_and_a_fleets_login_is_not(database: Settings, redis_url: str) -> None:
    """Given a login of the fleet, then doctor finds it well, and it may check every law and note who was seen."""
    assert examined(database, "the login").verdict is Verdict.WARN
    assert "is a superuser" in examined(database, "the login").seen
    migrate(database, with_roles=True)
    with login(database, f"IN ROLE {FLEET}") as given:
        settings = dataclasses.replace(given, redis_url=redis_url)
        assert examined(settings, "the login").verdict is Verdict.OK
        assert examined(settings, "(L7)").verdict is Verdict.OK
        runtime = Runtime(lambda: settings)
        try:
            with runtime.engine.begin() as connection:
                seen.note(connection, seen.CONSUMER, "one", details={"served": "0,1,2,3"})
                seen.leave(connection, seen.CONSUMER, "one")
            assert check_laws(runtime)["L7 append only"] == 0
            with runtime.engine.connect() as connection:
                assert read_laws(connection)["L1 ceiling"] is not None
        finally:
            runtime.close()


@pytest.mark.parametrize("table", ["price", "ledger_entry", "repair", "usage_history_early", "archive.usage_history"])
def test_a_table_that_may_be_changed_fails_by_name(
    database: Settings, session: psycopg.Connection[object], table: str
) -> None:
    """Given a trigger that is gone, off, or not for everybody, then doctor names its table and what to run."""
    for change in ("DISABLE TRIGGER billing_append_only", "ENABLE TRIGGER billing_append_only"):
        session.execute(f"ALTER TABLE {table} {change}".encode())
        found = examined(database, "(L7)")
        assert (found.verdict, found.seen) == (Verdict.FAIL, f"1 tables may be changed (L7): {table}")
    session.execute(f"DROP TRIGGER billing_append_only ON {table}".encode())
    assert examined(database, "(L7)").verdict is Verdict.FAIL
    session.execute(f"SELECT billing_make_append_only('{table}')".encode())
    assert examined(database, "(L7)").verdict is Verdict.OK


def test_what_a_crash_would_lose_is_warned_of(database: Settings, session: psycopg.Connection[object]) -> None:
    """Given commits that do not wait for the disk, then doctor names the setting. The tests' server has no fsync."""
    assert "fsync is off" in examined(database, "a crash loses").seen
    assert "synchronous_commit" not in examined(database, "a crash loses").seen
    name = session.info.dbname
    session.execute(f"ALTER DATABASE {name} SET synchronous_commit = off".encode())
    found = examined(database, "a crash loses")
    assert found.verdict is Verdict.WARN
    assert "synchronous_commit is off" in found.seen
