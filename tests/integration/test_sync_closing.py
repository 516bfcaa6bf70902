"""What was used in a period that is over, or about to close, is planned before the next whole plan."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy

from billing.core.settings import Settings
from billing.sinks.sync.planning.planner import Planner, PlanRules
from billing.sinks.sync.postgres.log import PostgresLog
from tests.integration.subscribed import APRIL, MARCH, MAY, Periods, at, period, plan, planner
from tests.integration.syncing import METER, Syncing, TestClock

pytestmark = pytest.mark.integration

HOUR, MINUTE, DAY = timedelta(hours=1), timedelta(minutes=1), timedelta(days=1)
BOUNDARY = APRIL.replace(minute=0, second=0)


@pytest.fixture
def syncing(engine: sqlalchemy.Engine, database: Settings) -> Syncing:
    found = Syncing(engine=engine, settings=database, clock=TestClock(MARCH + 2 * DAY))
    found.add("acme", "cus_acme")
    return found


@pytest.fixture
def source() -> Periods:
    found = Periods()
    found.put("cus_acme", period(MARCH, APRIL))
    return found


def increments(syncing: Syncing, columns: str = "units, period_start, event_at") -> list[tuple[object, ...]]:
    """Return the increments in the order in which they were planned."""
    return [tuple(row) for row in syncing.read(f"SELECT {columns} FROM stripe_increment ORDER BY increment_id")]


def test_what_was_used_in_a_period_that_is_over_is_planned_before_it_closes(syncing: Syncing, source: Periods) -> None:
    """Given two clients, one of whose periods is over, then that one's usage is planned, of which nothing is late."""
    syncing.add("other", "cus_other")
    source.put("cus_other", period(MARCH, MAY))
    syncing.use("acme", 1, hour=MARCH + DAY)
    syncing.use("other", 1, hour=MARCH + DAY)
    plan(syncing, source)
    syncing.use("acme", 7, hour=BOUNDARY - HOUR)
    syncing.use("other", 9, hour=BOUNDARY - HOUR)
    for instant, planned in ((APRIL - MINUTE, 0), (APRIL + MINUTE, 1), (APRIL + 2 * MINUTE, 0)):
        at(syncing, instant)
        assert planner(syncing, None).close().increments == planned
        syncing.laws()

    assert increments(syncing)[-1] == (7, MARCH, APRIL.replace(minute=36, second=30))
    assert increments(syncing, "client_id")[2:] == [("acme",)]


def test_what_was_used_in_a_subscription_that_ends_is_planned_before_its_end(syncing: Syncing, source: Periods) -> None:
    """It closes before its end, since its last invoice may be final at once."""
    source.put("cus_acme", period(MARCH, APRIL, ended=True))
    syncing.use("acme", 1, hour=MARCH + DAY)
    plan(syncing, source)
    syncing.use("acme", 7, hour=BOUNDARY - HOUR)
    at(syncing, APRIL - HOUR)
    assert planner(syncing, None).close().increments == 0
    at(syncing, APRIL - 50 * MINUTE)
    assert planner(syncing, None).close().increments == 1
    assert increments(syncing)[-1][:2] == (7, MARCH)


def test_given_calendar_months_when_one_is_over_then_its_usage_is_planned_before_it_closes(syncing: Syncing) -> None:
    may = MAY.replace(day=1, hour=0, minute=0, second=0)
    rules = PlanRules(meter=METER, grace=HOUR, calendar=True)
    closing = Planner(PostgresLog(syncing.engine), syncing.clock, rules)
    syncing.use("acme", 7, hour=may - HOUR)
    for instant, planned in ((may - MINUTE, 0), (may + MINUTE, 1), (may + 2 * HOUR, 0)):
        at(syncing, instant)
        assert closing.close().increments == planned
    syncing.use("acme", 7, hour=may - HOUR)
    assert closing.close().increments == 0
