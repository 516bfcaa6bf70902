"""What a reading may not see, or cannot be told, is a finding; the rest of it is there (L10)."""

from __future__ import annotations

import dataclasses

import psycopg
import pytest

from billing.embedded.stack import Stack
from billing.observability.doctor.finding import Verdict
from billing.observability.overview.log_side import LogSide
from billing.schema.migrate import migrate
from billing.schema.privileges import READER
from billing.task.runtime import Runtime
from tests.integration.logins import login
from tests.integration.recovering import Business
from tests.integration.watching_fleet import read_once, read_until

pytestmark = pytest.mark.integration


def test_given_the_redis_transport_then_a_reading_has_what_waits_and_does_not_know_who_consumes(
    business: Business, stack: Stack, result_url: str
) -> None:
    settings = dataclasses.replace(business.settings, broker_url=stack.results.url_of(1))
    other = Business(settings)
    other.settle(other.client("berry", 100), 5, "task")
    state = read_once(other.runtime)
    other.stop()
    assert state.queues is not None
    assert sum(queue.events for queue in state.queues) == 1
    assert {queue.consumers for queue in state.queues} == {None}


def test_given_a_database_that_was_never_migrated_then_it_is_a_finding_and_the_rest_is_read(
    business: Business, stack: Stack
) -> None:
    settings = dataclasses.replace(business.settings, database_url=stack.postgres.url_of("postgres"))
    runtime = Runtime(lambda: settings)
    state = read_until(runtime, lambda state: state.laws is None and state.holds is not None, "Redis answers")
    runtime.close()
    assert (state.increments, state.dead_letters, state.seen, state.months_ahead) == (None,) * 4
    assert any("billing migrate" in found.advice and found.verdict is Verdict.FAIL for found in state.findings)


def test_given_a_table_that_somebody_has_locked_then_it_alone_is_not_known(
    business: Business, session: psycopg.Connection[object]
) -> None:
    """L10: a migration that holds one table hides no number of another."""
    business.settle(business.client("berry", 100), 5, "task", publish=False)
    side = LogSide(business.settings, business.runtime.clock)
    with psycopg.connect(business.settings.database_url) as holder:
        holder.execute("LOCK TABLE usage_history, parked_task IN ACCESS EXCLUSIVE MODE")
        found = side.read()
    after = side.read()
    side.close()
    assert (found.log_read, found.log_last_at, found.parked_tasks, found.dead_letters) == (False, None, None, 0)
    assert [finding.seen for finding in found.findings] == [
        "parked tasks could not be read in time",
        "the usage history could not be read in time",
    ]
    assert (after.log_read, after.log_last_at, after.parked_tasks, after.findings) == (True, None, 0, ())


def test_given_a_login_that_only_reads_then_what_it_may_not_see_is_a_finding_and_the_rest_is_read(
    business: Business, session: psycopg.Connection[object]
) -> None:
    migrate(business.settings, with_roles=True)
    with login(business.settings, f"IN ROLE {READER}") as settings:
        side = LogSide(settings, business.runtime.clock)
        found, sync = side.read(), side.read_sync()
        side.close()
    assert (found.parked_tasks, found.dead_letters, found.seen, found.deliveries) == (None, 0, (), 0)
    (finding,) = found.findings
    assert finding.verdict is Verdict.WARN
    assert "parked_task" in finding.seen
    assert sync.unplanned_credits == 0


def test_given_wrong_passwords_then_each_is_a_finding_without_the_password(business: Business, stack: Stack) -> None:
    def wrong(url: str, login: str) -> str:
        scheme, _, rest = url.partition("://")
        return f"{scheme}://{login}@{rest.rpartition('@')[2]}"

    settings = dataclasses.replace(
        business.settings,
        redis_url=wrong(business.settings.redis_url, ":hunter2"),
        database_url=wrong(business.settings.database_url, "nobody:hunter2"),
        broker_url=wrong(business.settings.broker_url, "guest:hunter2"),
    )
    runtime = Runtime(lambda: settings)
    state = read_until(runtime, lambda state: len(state.servers) >= 3, "each has answered or not")
    runtime.close()
    assert state.servers == {"Redis": False, "PostgreSQL": False, "broker": False}
    assert (state.outbox, state.laws, state.queues) == (None, None, None)
    assert "hunter2" not in repr(state)
    failed = {found.part for found in state.findings if found.verdict is Verdict.FAIL}
    assert {"Redis", "PostgreSQL", "broker"} <= failed
