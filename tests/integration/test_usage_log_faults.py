"""What the usage log does when something breaks: nothing half done, and the blame is put where it belongs."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from billing.connections import postgres
from billing.core.credits import CREDITS_MAX
from billing.core.errors import Unreachable
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.fulfillment.log import BatchReport, LogUnready, Unwritable, UsageLog
from billing.fulfillment.postgres_log import PostgresUsageLog
from billing.schema.advisory import Guard
from tests.usage_events import delivered, paid_line, usage_event
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

Session = psycopg.Connection[Any]

WAITING = """
    SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = database
    WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()
"""
END_OTHERS = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def test_given_sums_that_pass_bigint_when_written_then_the_history_is_untouched(
    session: Session, log: UsageLog, clients: Callable[..., None]
) -> None:
    clients("acme")
    line = paid_line(quantity=CREDITS_MAX, shares=[(1, CREDITS_MAX)])
    full = [delivered(usage_event(lines=[line] * 256)) for _ in range(5)]
    for message in full[:4]:
        log.write([message])
    with pytest.raises(Unwritable, match="out of range"):
        log.write(full[4:])
    row = session.execute("SELECT count(*), sum(credits) FROM usage_history").fetchone()
    assert row == (1024, 1024 * CREDITS_MAX)


def test_given_no_server_when_written_then_it_is_unreachable() -> None:
    nowhere = Settings(database_url="postgresql://billing:secret@127.0.0.1:1/billing", database_timeout_seconds=1)
    log = PostgresUsageLog(lambda: postgres.connect(nowhere), shards=64)
    with pytest.raises(Unreachable, match=r"^billing_database_url: ") as caught:
        log.write([delivered(usage_event())])
    assert "secret" not in str(caught.value)


def test_given_a_connection_that_is_lost_in_the_middle_when_written_then_nothing_is_done_and_the_next_write_reconnects(
    session: Session, log: UsageLog, clients: Callable[..., None]
) -> None:
    """The batch waits for its shard (as while a rebuild runs), and its server process is ended there."""
    clients("acme")
    assert log.write([delivered(usage_event())]).events == 1
    batch = [delivered(usage_event()) for _ in range(5)]
    lock = [int(Guard.SHARD), shard_of("acme", 64)]
    session.execute("SELECT pg_advisory_lock(%s, %s)", lock)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(log.write, batch)
        wait_until(lambda: session.execute(WAITING).fetchall(), "the batch waits for its shard")
        session.execute(END_OTHERS)
        with pytest.raises(Unreachable, match=r"^billing_database_url: .*127\.0\.0\.1.* \(.+\)$"):
            writing.result(120)
    session.execute("SELECT pg_advisory_unlock(%s, %s)", lock)
    assert session.execute("SELECT count(*) FROM usage_history").fetchone() == (1,)
    assert log.write(batch).rows_inserted == 5


def test_given_a_rebuild_that_holds_the_shard_when_written_then_the_batch_sees_the_epoch_that_it_committed(
    database: Settings, session: Session, log: UsageLog, clients: Callable[..., None]
) -> None:
    """L6: the epochs are read after the wait, not before it."""
    clients("acme")
    with psycopg.connect(database.database_url) as rebuild:
        rebuild.execute("SELECT pg_advisory_xact_lock(%s, %s)", [int(Guard.SHARD), shard_of("acme", 64)])
        rebuild.execute("UPDATE client SET epoch = 2")
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(log.write, [delivered(usage_event(epoch=1))])
            wait_until(lambda: session.execute(WAITING).fetchall(), "the batch waits for its shard")
            rebuild.commit()
            report = writing.result(120)
    assert report == BatchReport(events=1, rows_inserted=1, postings=("acme",))
    assert session.execute("SELECT client_id, epoch, grant_id, credits FROM posting").fetchall() == [("acme", 2, 1, 10)]


def test_given_an_unmigrated_database_when_written_then_no_message_is_blamed(
    session: Session, log: UsageLog, clients: Callable[..., None]
) -> None:
    clients("acme")
    session.execute("DROP TABLE usage_rollup")
    batch = [delivered(usage_event())]
    with pytest.raises(LogUnready, match=r"usage_rollup.*see: billing migrate"):
        log.write(batch)
    assert session.execute("SELECT count(*) FROM usage_history").fetchone() == (0,)


def test_given_another_number_of_shards_when_written_then_no_message_is_blamed(
    database: Settings, clients: Callable[..., None]
) -> None:
    clients("acme")
    log = PostgresUsageLog(lambda: postgres.connect(database), shards=63)
    with pytest.raises(LogUnready, match=r"^billing_shards: 63: "):
        log.write([delivered(usage_event())])
    log.close()


@pytest.fixture
def consumer_role(session: Session) -> Iterator[str]:
    """Make a role with no more rights than a consumer needs."""
    role = f"consumer_{uuid.uuid4().hex[:8]}"
    session.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'consumer'")
    session.execute(
        f"GRANT SELECT, INSERT ON usage_history, recovery_marker, dead_letter, settlement_returned TO {role}"
    )
    session.execute(f"GRANT SELECT, INSERT, UPDATE ON usage_rollup, grant_spent, shard_rebuild, posting TO {role}")
    session.execute(f"GRANT SELECT, UPDATE (epoch) ON client TO {role}")
    session.execute(f"GRANT UPDATE (reason, refusals, refused_at) ON dead_letter TO {role}")
    session.execute(f"GRANT SELECT ON credit_grant, ledger_entry TO {role}")
    yield role
    session.execute(f"DROP OWNED BY {role}")
    session.execute(f"DROP ROLE {role}")


def test_given_a_role_that_may_only_insert_when_written_then_it_is_enough_and_it_cannot_make_months(
    database: Settings, session: Session, clients: Callable[..., None], consumer_role: str
) -> None:
    clients("acme")
    url = database.database_url.split("@", 1)[1]
    log = PostgresUsageLog(lambda: psycopg.connect(f"postgresql://{consumer_role}:consumer@{url}"), shards=64)
    session.execute("UPDATE client SET epoch = 2")
    direct, twice, newer = usage_event(epoch=0), usage_event(epoch=2), usage_event(epoch=3)
    again = usage_event(run_id=twice.run_id, epoch=2)
    batch = [direct, twice, again, newer, usage_event("stranger")]
    report = log.write([delivered(event) for event in batch])
    assert report.rows_inserted == 3
    assert report.dead_letters == len(report.rebuilds) == len(report.postings) == 1
    log.close()
    session.execute("DROP TABLE usage_history_legacy")
    session.execute(f"SET ROLE {consumer_role}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("SELECT billing_make_usage_partition('usage_history_legacy', 'FROM (MINVALUE) TO (MAXVALUE)')")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("DELETE FROM usage_history")
    session.execute("RESET ROLE")
