"""A database whose increments an earlier version planned: each finds its way once it is migrated (L8)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from alembic import command

from billing.connections import postgres
from billing.core.settings import Settings
from billing.schema import migrate
from tests.integration.subscribed import Periods, period, plan
from tests.integration.syncing import METER, Syncing, TestClock

pytestmark = pytest.mark.integration

DAY = timedelta(days=1)
NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
JANUARY, FEBRUARY, MARCH, APRIL = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2, 3, 4))
#: State, month, attempts, first attempt.
OLD = (
    ("pending", FEBRUARY, 0, None),
    ("pending", MARCH, 0, None),
    ("quarantined", JANUARY, 0, None),
    ("quarantined", JANUARY, 2, JANUARY),
    ("sending", FEBRUARY, 1, NOW - DAY),
    ("ambiguous", FEBRUARY, 1, NOW - timedelta(hours=1)),
    ("sent", FEBRUARY, 1, FEBRUARY),
)


@pytest.fixture
def upgraded(database: Settings) -> Iterator[Syncing]:
    """Migrate a database in which the earlier version had left an increment in every state."""
    with psycopg.connect(database.database_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public, archive CASCADE")
        connection.execute("CREATE SCHEMA public")
    engine = postgres.engine(database)
    with engine.begin() as connection:
        config = migrate._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0019_unplanned_rollups")
        raw = connection.connection.cursor()
        raw.execute("INSERT INTO client (client_id, shard) VALUES ('acme', 1)")
        raw.execute("INSERT INTO stripe_customer (client_id, customer_id) VALUES ('acme', 'cus_acme')")
        for number, (state, month, attempts, first) in enumerate(OLD):
            end = (month + 32 * DAY).replace(day=1)
            at = month + timedelta(minutes=number, seconds=30)
            raw.execute(
                "INSERT INTO stripe_increment (client_id, customer_id, event_name, period_start, period_end, units,"
                " event_at, identifier, state, attempts, planned_at, first_attempt_at, last_attempt_at, lease_until,"
                " sent_to) VALUES ('acme', 'cus_acme', %s, %s, %s, 5, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                (METER, month, end, at, f"b1-{number}", state, attempts, at, first, first, first, first and "stand-in"),
            )
            raw.execute(
                "INSERT INTO stripe_increment_part SELECT max(increment_id), 'page', %s, 0, 5 FROM stripe_increment",
                (month + number * timedelta(hours=1),),
            )
            raw.execute(
                "INSERT INTO usage_rollup (client_id, sku, hour, credits, quantity, planned)"
                " VALUES ('acme', 'page', %s, 5, 1, 5)",
                (month + number * timedelta(hours=1),),
            )
    engine.dispose()
    migrate.migrate(database)
    opened = Syncing(engine=postgres.engine(database), settings=database, clock=TestClock(NOW))
    yield opened
    opened.engine.dispose()


def rows(syncing: Syncing) -> list[tuple[object, ...]]:
    found = syncing.read(
        "SELECT state, generation, period_start, closes_at <= :now FROM stripe_increment ORDER BY increment_id",
        now=syncing.clock.now(),
    )
    return [tuple(row) for row in found]


def test_what_an_earlier_version_planned_for_a_month_that_is_over_is_not_sent_for_its_final_invoice(
    upgraded: Syncing,
) -> None:
    """Given increments in every old state, then what nothing arrived of is planned anew, and what is in doubt waits."""
    assert rows(upgraded) == [
        ("pending", 1, FEBRUARY, True),
        ("pending", 1, MARCH, False),
        ("pending", 1, JANUARY, True),
        ("quarantined", 1, JANUARY, None),
        ("sending", 1, FEBRUARY, True),
        ("ambiguous", 1, FEBRUARY, True),
        ("sent", 1, FEBRUARY, None),
    ]
    source = Periods()
    source.put("cus_acme", period(FEBRUARY, MARCH), period(MARCH, APRIL))

    assert plan(upgraded, source).reissued == 2

    assert [row[:3] for row in rows(upgraded)[:4]] == [
        ("pending", 2, MARCH),
        ("pending", 1, MARCH),
        ("pending", 2, MARCH),
        ("quarantined", 1, JANUARY),
    ]
