"""Each credit of a linked client is planned exactly once, whoever plans, whenever it was written (L8)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import sqlalchemy

from billing.core.settings import Settings
from billing.schema.stripe import UNITS_MAX
from billing.schema.tables import usage_rollup
from tests.integration.syncing import NOON, Syncing, TestClock, open_session
from tests.sessions import is_any_waiting
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def syncing(engine: sqlalchemy.Engine, database: Settings) -> Syncing:
    return Syncing(engine=engine, settings=database, clock=TestClock())


def test_given_usage_when_planned_twice_then_one_increment_carries_it_with_its_parts(syncing: Syncing) -> None:
    syncing.add("acme", "cus_acme")
    syncing.use("acme", 7)
    syncing.use("acme", 5, sku="search")
    syncing.use("acme", 3, hour=NOON - timedelta(hours=2))

    first, second = syncing.planner().plan(), syncing.planner().plan()

    assert (first.increments, first.units, first.clients) == (1, 15, 1)
    assert (second.increments, second.units) == (0, 0)
    (increment,) = syncing.read("SELECT * FROM stripe_increment")
    assert (increment.units, increment.customer_id, increment.state) == (15, "cus_acme", "pending")
    assert (increment.period_start, increment.period_end) == (
        datetime(2026, 3, 1, tzinfo=UTC),
        datetime(2026, 4, 1, tzinfo=UTC),
    )
    parts = syncing.read("SELECT sku, hour, credits_from, credits_to FROM stripe_increment_part ORDER BY hour, sku")
    assert [tuple(part) for part in parts] == [
        ("page", NOON - timedelta(hours=2), 0, 3),
        ("page", NOON, 0, 7),
        ("search", NOON, 0, 5),
    ]
    syncing.laws()


def test_given_more_usage_of_an_hour_that_was_planned_when_planned_each_time_then_each_credit_is_carried_once(
    syncing: Syncing,
) -> None:
    """L8: what is planned of a row is a running total."""
    syncing.add("acme", "cus_acme")
    for credits_ in (7, 4, 2):
        syncing.use("acme", credits_)
        assert [syncing.planner().plan().units for _ in range(2)] == [credits_, 0]
    assert [tuple(row) for row in syncing.read("SELECT credits, planned FROM usage_rollup")] == [(13, 13)]
    syncing.laws()


def test_given_a_batch_that_commits_during_a_plan_then_the_next_plan_carries_it(syncing: Syncing) -> None:
    """A row that is written late is not passed over: there is no watermark that it could be behind."""
    syncing.add("acme", "cus_acme")
    syncing.use("acme", 7)
    with open_session(syncing.settings) as consumer, ThreadPoolExecutor(1) as pool:
        consumer.execute("UPDATE usage_rollup SET credits = credits + 4")
        consumer.execute("INSERT INTO usage_rollup VALUES ('acme', 'search', %s, 2, 1)", [NOON])
        planning = pool.submit(syncing.planner().plan)
        wait_until(lambda: is_any_waiting(syncing.settings.database_url), "the planner waits for the row")
        consumer.commit()
        assert planning.result(timeout=120).units == 11

    assert syncing.planner().plan().units == 2
    syncing.laws()


def test_given_many_planners_at_once_then_each_credit_is_planned_once(syncing: Syncing) -> None:
    for number in range(30):
        syncing.add(f"client-{number:02}", f"cus_{number}")
        syncing.use(f"client-{number:02}", number + 1)

    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: syncing.planner(rows=7).plan(), range(4)))

    assert sum(report.units for report in reports) == sum(range(1, 31))
    assert syncing.read("SELECT count(*) FROM stripe_increment")[0][0] == 30
    syncing.laws()


def test_given_a_planner_at_work_then_another_one_leaves_at_once(syncing: Syncing) -> None:
    syncing.add("acme", "cus_acme")
    syncing.use("acme", 7)
    with open_session(syncing.settings) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s, 0)", [0x62696C06])
        report = syncing.planner().plan()

    assert report.busy
    assert report.increments == 0
    assert syncing.planner().plan().units == 7


def test_given_more_units_than_stripe_takes_at_once_then_the_increment_is_split(syncing: Syncing) -> None:
    """Each part of a split has a minute and an identifier of its own."""
    syncing.add("acme", "cus_acme")
    syncing.use("acme", 2 * UNITS_MAX + 5)

    report = syncing.planner().plan()

    assert (report.increments, report.units) == (3, 2 * UNITS_MAX + 5)
    rows = syncing.read("SELECT units, event_at, identifier FROM stripe_increment ORDER BY increment_id")
    assert [row.units for row in rows] == [UNITS_MAX, UNITS_MAX, 5]
    assert [row.event_at for row in rows] == [NOON - timedelta(seconds=30 + 60 * n) for n in range(3)]
    assert len({row.identifier for row in rows}) == 3
    syncing.laws()


def test_given_unlinked_clients_then_nothing_of_theirs_is_planned_until_they_are_linked(syncing: Syncing) -> None:
    syncing.add("acme", "cus_acme")
    syncing.add("late")
    syncing.use("acme", 7)
    syncing.use("late", 9)

    assert syncing.planner().plan().units == 7
    syncing.add("late", "cus_late")
    assert syncing.planner().plan().units == 9
    syncing.laws()


def test_given_usage_of_two_open_months_then_each_has_its_increment_inside_its_month(syncing: Syncing) -> None:
    """Within the grace period of Stripe's invoice, usage of the month that has ended is stamped inside it."""
    syncing.add("acme", "cus_acme")
    march = datetime(2026, 3, 1, tzinfo=UTC)
    syncing.clock.advance(march + timedelta(minutes=40) - NOON)
    syncing.use("acme", 7, hour=march)
    syncing.use("acme", 5, hour=march - timedelta(hours=1))

    assert syncing.planner().plan().increments == 2
    syncing.use("acme", 4, hour=march - timedelta(hours=2))
    assert syncing.planner().plan().increments == 1

    rows = syncing.read("SELECT units, event_at, state, closes_at FROM stripe_increment ORDER BY increment_id")
    closes_at = march + timedelta(minutes=50)
    assert [(row.units, row.event_at) for row in rows] == [
        (5, march - timedelta(seconds=30)),
        (7, march + timedelta(minutes=39, seconds=30)),
        (4, march - timedelta(seconds=90)),
    ]
    assert [row.closes_at for row in rows][::2] == [closes_at, closes_at]
    syncing.laws()


def test_given_no_free_minute_yet_then_the_credits_wait_for_the_next_plan(syncing: Syncing) -> None:
    syncing.add("acme", "cus_acme")
    start = datetime(2026, 4, 1, tzinfo=UTC)
    syncing.clock.advance(start + timedelta(seconds=10) - NOON)
    syncing.use("acme", 7)
    report = syncing.planner().plan()
    assert (report.increments, report.postponed) == (0, 1)

    syncing.clock.advance(timedelta(seconds=20))
    assert syncing.planner().plan().units == 7
    syncing.use("acme", 2)
    assert syncing.planner().plan().postponed == 1
    syncing.laws()


def test_given_a_slice_that_is_cut_inside_a_client_then_every_row_is_planned_once(syncing: Syncing) -> None:
    for client_id in ("a", "b", "c"):
        syncing.add(client_id, f"cus_{client_id}")
        for hours in range(5):
            syncing.use(client_id, 10, hour=NOON - timedelta(hours=hours))

    report = syncing.planner(rows=4).plan()

    assert (report.units, report.clients) == (150, 3)
    assert not report.busy
    syncing.laws()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE stripe_increment SET units = units + 1",
        "UPDATE stripe_increment SET identifier = 'another'",
        "UPDATE stripe_increment SET event_at = event_at - interval '1 minute'",
        "UPDATE stripe_increment SET customer_id = 'cus_other'",
        "DELETE FROM stripe_increment",
        "TRUNCATE stripe_increment CASCADE",
        "UPDATE stripe_increment_part SET credits_to = credits_to + 1",
        "DELETE FROM stripe_increment_part",
    ],
)
def test_given_a_planned_increment_then_the_database_refuses_another_payload(syncing: Syncing, change: str) -> None:
    syncing.add("acme", "cus_acme")
    syncing.use("acme", 7)
    syncing.planner().plan()
    before = syncing.read("SELECT * FROM stripe_increment"), syncing.read("SELECT * FROM stripe_increment_part")

    with open_session(syncing.settings) as session, pytest.raises(psycopg.Error):
        session.execute(change)

    after = syncing.read("SELECT * FROM stripe_increment"), syncing.read("SELECT * FROM stripe_increment_part")
    assert after == before


def test_what_a_plan_reads_does_not_grow_with_the_history(syncing: Syncing) -> None:
    """Given a long history that is planned, then a plan finds what is not by the index of what is not."""
    syncing.add("acme", "cus_acme")
    hours = [NOON - timedelta(hours=n) for n in range(5_000)]
    rows = [
        {"client_id": "acme", "sku": "page", "hour": hour, "credits": 1, "quantity": 1, "planned": 1} for hour in hours
    ]
    with syncing.engine.begin() as connection:
        connection.execute(sqlalchemy.insert(usage_rollup), rows)
    with open_session(syncing.settings) as session:
        session.execute("ANALYZE usage_rollup")
        found = session.execute("EXPLAIN SELECT FROM usage_rollup WHERE client_id = 'acme' AND unplanned")
        assert any("usage_rollup_unplanned_idx" in line for (line,) in found)
