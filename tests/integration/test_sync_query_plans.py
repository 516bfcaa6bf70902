"""What is asked of the report to Stripe reads no table from end to end that grows with its history."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import psycopg
import pytest
import sqlalchemy

from billing.core.settings import Settings
from billing.sinks.sync.planning.periods import KnownPeriod
from billing.sinks.sync.telling.left import read_left
from tests.integration.subscribed import MARCH, Periods, period, plan
from tests.integration.syncing import METER, Syncing, TestClock
from tests.integration.test_query_plans import Sent, catching

pytestmark = pytest.mark.integration

#: Of fewer rows than these, a scan is no sign of anything.
FEW_ROWS: Final = 1_000
NOW: Final = MARCH + timedelta(days=20)
MONTHS: Final = 60
LONG: Final = {"usage_rollup", "stripe_increment", "stripe_increment_part", "stripe_generation", "stripe_period"}

_HISTORY: Final = """
INSERT INTO client (client_id, shard) SELECT 'client-' || number, 0 FROM generate_series(1, 400) AS number;
INSERT INTO stripe_customer (client_id, customer_id) SELECT client_id, 'cus_' || client_id FROM client;
INSERT INTO usage_rollup (client_id, sku, hour, credits, quantity, planned)
SELECT client_id, 'page', date_trunc('hour', timestamptz '{now}') - number * interval '1 hour', 1, 1, 1
FROM client, generate_series(1, 50) AS number;
INSERT INTO stripe_period (customer_id, event_name, period_start, period_end, closes_at, read_at)
SELECT customer_id, '{meter}', timestamptz '{start}' - number * interval '1 month',
       timestamptz '{start}' - (number - 1) * interval '1 month',
       timestamptz '{start}' - (number - 1) * interval '1 month', '{now}'
FROM stripe_customer, generate_series(0, {months}) AS number;
INSERT INTO stripe_increment (client_id, customer_id, event_name, period_start, period_end, units, event_at, identifier,
                              state, closes_at)
SELECT client_id, customer_id, '{meter}', timestamptz '{start}', timestamptz '{start}' + interval '1 month', 1,
       date_trunc('minute', timestamptz '{now}') - number * interval '15 minutes' + interval '30 seconds',
       client_id || '-' || number, 'confirmed', timestamptz '{now}' + interval '1 day'
FROM stripe_customer, generate_series(1, 50) AS number;
INSERT INTO stripe_increment_part (increment_id, sku, hour, credits_from, credits_to)
SELECT increment_id, 'page', date_trunc('hour', timestamptz '{now}')
       - row_number() OVER (PARTITION BY client_id ORDER BY increment_id) * interval '1 hour', 0, 1
FROM stripe_increment;
"""


@pytest.fixture
def syncing(engine: sqlalchemy.Engine, database: Settings) -> Syncing:
    """Make a long history of which all is planned and confirmed."""
    with psycopg.connect(database.database_url, autocommit=True) as session:
        given = {"now": NOW.isoformat(), "start": MARCH.isoformat(), "meter": METER, "months": str(MONTHS)}
        session.execute(_HISTORY.format_map(given).encode())
        session.execute("ANALYZE")
    return Syncing(engine=engine, settings=database, clock=TestClock(NOW))


def scanned(settings: Settings, sent: list[Sent]) -> dict[str, str]:
    """Return which long tables statements would read from end to end, each with one of the statements."""
    found: dict[str, str] = {}
    with psycopg.connect(settings.database_url, autocommit=True) as session:
        long = {
            row[0]
            for row in session.execute(
                "SELECT relname FROM pg_class WHERE relname ~ '^(usage_rollup|stripe_)' AND relkind = 'r'"
                " AND reltuples > %s",
                [FEW_ROWS],
            ).fetchall()
        }
        assert long == LONG
        for statement, values in sent:
            if not statement.strip().startswith(("SELECT", "WITH", "UPDATE")) or "pg_try" in statement:
                continue
            row = session.execute(b"EXPLAIN (FORMAT JSON) " + statement.encode(), values).fetchone()
            assert row is not None
            nodes = [row[0][0]["Plan"]]
            while nodes:
                node = nodes.pop()
                nodes += node.get("Plans", ())
                if node["Node Type"] == "Seq Scan" and node["Relation Name"] in long:
                    found[node["Relation Name"]] = statement
    return found


def test_a_plan_reads_no_more_of_a_long_history_than_what_is_new(syncing: Syncing) -> None:
    """Given years of periods and increments, then reading, reissuing, closing, planning and flushing stay short."""
    source = Periods()
    present = period(MARCH, MARCH.replace(month=4))
    for number in range(1, 401):
        source.put(f"cus_client-{number}", present)
    for number in range(1, 11):
        syncing.use(f"client-{number}", 5)
    source.put("cus_client-1", KnownPeriod(start=MARCH, end=NOW + timedelta(days=1), closes_at=NOW, ended=True))
    source.put("cus_client-2", period(MARCH, NOW))
    with psycopg.connect(syncing.settings.database_url, autocommit=True) as session:
        session.execute("UPDATE stripe_period_read SET read_at = read_at - interval '1 day'")

    with catching() as sent:
        report = plan(syncing, source)
        reissued = _reissue(syncing, source)
        with syncing.engine.connect() as connection:
            assert read_left(connection, "client-3", meter=METER).is_all_there is False

    assert (report.increments, report.periods_read, reissued) == (8, 10, 1)
    of_interest = [one for one in sent if "lag(credits_to" not in one.statement and "sum(planned)" not in one.statement]
    assert any("FOR NO KEY UPDATE" in one.statement for one in of_interest)
    assert scanned(syncing.settings, of_interest) == {}


def _reissue(syncing: Syncing, source: Periods) -> int:
    """Have one increment be absent; return how many were planned anew."""
    with psycopg.connect(syncing.settings.database_url, autocommit=True) as session:
        session.execute(
            "UPDATE stripe_increment SET state = 'ambiguous', absence_checks = 2, absent_since = %s, closes_at = NULL"
            " WHERE increment_id = (SELECT max(increment_id) FROM stripe_increment)",
            [NOW - timedelta(days=2)],
        )
    syncing.clock.advance(timedelta(minutes=1))
    return plan(syncing, source).reissued


def test_a_minute_is_found_among_many(syncing: Syncing) -> None:
    source = Periods()
    source.put("cus_client-1", period(MARCH, MARCH.replace(month=4)))
    syncing.use("client-1", 5)

    assert plan(syncing, source).increments == 1

    (row,) = syncing.read("SELECT event_at FROM stripe_increment ORDER BY increment_id DESC LIMIT 1")
    expected: datetime = (NOW - timedelta(seconds=30)).replace(second=30)
    assert row.event_at == (expected if expected <= NOW else expected - timedelta(minutes=1))
