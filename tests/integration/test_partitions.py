"""The history's months are made a year ahead, as often and as concurrently as one likes, beside running consumers."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import sqlalchemy

from billing.core.clock import to_milliseconds
from billing.fulfillment.log import LogUnready, UsageLog
from billing.schema.partitions import make_partitions
from tests.usage_events import delivered, usage_event

pytestmark = pytest.mark.integration

PARTITIONS = """
    SELECT relname, pg_get_expr(relpartbound, oid) FROM pg_inherits JOIN pg_class ON oid = inhrelid
    WHERE inhparent = 'usage_history'::regclass ORDER BY relname
"""


def bound(instant: datetime) -> uuid.UUID:
    """Return the smallest run id of an instant."""
    return uuid.UUID(int=round(instant.timestamp() * 1000) << 80)


def month_after(month: datetime, count: int) -> datetime:
    """Return the first of the month, `count` months on."""
    index = month.year * 12 + month.month - 1 + count
    return month.replace(year=index // 12, month=index % 12 + 1, day=1, hour=0, minute=0, second=0, microsecond=0)


def test_given_a_migrated_database_then_months_reach_a_year_ahead_without_a_gap_or_a_default(
    session: psycopg.Connection[Any], migrated_at: datetime
) -> None:
    partitions = dict(session.execute(PARTITIONS).fetchall())
    now = migrated_at
    first = month_after(now, -1)
    expected = {"usage_history_early": f"FOR VALUES FROM (MINVALUE) TO ('{bound(first)}')"}
    for count in range(-1, 13):
        month, following = month_after(now, count), month_after(now, count + 1)
        expected[f"usage_history_{month:%Y_%m}"] = f"FOR VALUES FROM ('{bound(month)}') TO ('{bound(following)}')"
    expected["usage_history_legacy"] = "FOR VALUES FROM ('ffffffff-ffff-0000-0000-000000000000') TO (MAXVALUE)"
    assert partitions == expected


def test_given_a_later_day_when_made_at_once_by_four_then_each_month_is_made_once(
    engine: sqlalchemy.Engine, migrated_at: datetime
) -> None:
    later = month_after(migrated_at, 3)

    def make(_: int) -> list[str]:
        with engine.begin() as connection:
            return make_partitions(connection, later)

    with ThreadPoolExecutor(4) as pool:
        made = [name for names in pool.map(make, range(4)) for name in names]
    assert made == [f"usage_history_{month_after(later, count):%Y_%m}" for count in (10, 11, 12)]


def test_given_an_open_batch_when_months_are_made_then_neither_waits_for_the_other(
    engine: sqlalchemy.Engine, session: psycopg.Connection[Any], migrated_at: datetime
) -> None:
    with engine.begin() as consumer, engine.begin() as migration:
        migration.exec_driver_sql("SET LOCAL lock_timeout = '60s'")
        consumer.exec_driver_sql("SET LOCAL lock_timeout = '60s'")
        insert = (
            "INSERT INTO usage_history (run_id, line, settlement_id, client_id, correlation_id, root_id, task, attempt,"
            " sku, quantity, credits, grants, epoch, price_version, occurred_at)"
            " VALUES (billing_run_id_bound(now()), {}, 's', 'c', 't', 't', 'task', 1, 'page', 1, 1, '[]', 1, 1, now())"
        )
        consumer.exec_driver_sql(insert.format(0))
        assert len(make_partitions(migration, month_after(migrated_at, 2))) == 2
        consumer.exec_driver_sql(insert.format(1))
    assert session.execute("SELECT count(*) FROM usage_history").fetchone() == (2,)


def test_given_a_missing_month_when_a_batch_needs_it_then_it_waits_without_loss_until_the_month_is_made(
    engine: sqlalchemy.Engine, session: psycopg.Connection[Any], log: UsageLog, clients: Callable[..., None]
) -> None:
    """L9, L10: no message is to blame, so it is neither `Unwritable` nor a dead letter."""
    clients("acme")
    now = datetime.now(UTC)
    session.execute(f"DROP TABLE usage_history_{now:%Y_%m}")
    batch = [delivered(usage_event(at_milliseconds=to_milliseconds(now)))]
    with pytest.raises(LogUnready, match=r"no partition of relation .*billing partitions"):
        log.write(batch)
    assert session.execute("SELECT count(*) FROM dead_letter").fetchone() == (0,)
    with engine.begin() as connection:
        # With the month that a new one brings, if it has just begun.
        assert make_partitions(connection, now)[0] == f"usage_history_{now:%Y_%m}"
    assert log.write(batch).rows_inserted == 1


def test_given_an_archived_month_when_months_are_made_then_it_is_not_made_again(
    engine: sqlalchemy.Engine, session: psycopg.Connection[Any], migrated_at: datetime
) -> None:
    """An id found in the archive is a duplicate (L3): an empty month in its place would hide that."""
    name = f"usage_history_{month_after(migrated_at, -1):%Y_%m}"
    session.execute(f"ALTER TABLE usage_history DETACH PARTITION {name}")
    session.execute(f"ALTER TABLE {name} SET SCHEMA archive")
    with engine.begin() as connection:
        assert make_partitions(connection, migrated_at) == []


def test_given_runs_from_every_time_when_written_then_each_lies_in_its_range(
    session: psycopg.Connection[Any], log: UsageLog, clients: Callable[..., None]
) -> None:
    clients("acme")
    at = datetime.now(UTC)
    now = to_milliseconds(at)
    old = usage_event(at_milliseconds=now - 400 * 86_400_000)
    legacy = usage_event(run_id=uuid.UUID("ffffffff-ffff-7abc-8abc-000000000001"))
    recent = usage_event(at_milliseconds=now)
    assert log.write([delivered(event) for event in (old, legacy, recent)]).rows_inserted == 3
    rows = session.execute("SELECT run_id, tableoid::regclass::text FROM usage_history").fetchall()
    assert dict(rows) == {
        old.run_id: "usage_history_early",
        legacy.run_id: "usage_history_legacy",
        recent.run_id: f"usage_history_{at:%Y_%m}",
    }
