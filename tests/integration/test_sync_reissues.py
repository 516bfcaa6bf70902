"""An increment that cannot be sent as it is gets a next generation, maybe elsewhere, and all stay on record (L8)."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy

from billing.core.settings import Settings, StripeLateUsage
from tests.integration.subscribed import APRIL, FEBRUARY, MARCH, MAY, Periods, at, period, plan, planner
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


def test_a_cancellation_that_is_found_later_closes_what_was_planned(syncing: Syncing, source: Periods) -> None:
    """Given a pending increment, when its subscription turns out to be gone, then it is planned anew where one is."""
    syncing.use("acme", 7)
    plan(syncing, source)
    source.of.clear()
    syncing.clock.advance(MINUTE)
    syncing.use("acme", 5)

    report = plan(syncing, source)

    assert report.increments == 0
    ((state, closes_at, reason),) = increments(syncing, "state, closes_at, reason")
    assert (state, closes_at) == ("pending", syncing.clock.now())
    assert "no later one is open" in str(reason)
    source.put("cus_acme", period(syncing.clock.now() + HOUR, MAY))
    syncing.clock.advance(2 * HOUR)
    report = plan(syncing, source)
    assert (report.reissued, report.units) == (1, 5)
    found = increments(
        syncing, "units, generation, state, period_start = (SELECT max(period_start) FROM stripe_period)"
    )
    assert found == [(7, 2, "pending", True), (5, 1, "pending", True)]
    identifiers = [row.identifier for row in syncing.read("SELECT identifier FROM stripe_generation")]
    assert len(set(identifiers)) == 3


def test_a_cancellation_closes_what_was_left_though_nothing_is_used_any_more(syncing: Syncing, source: Periods) -> None:
    """Given a pending increment of a client that uses nothing, then a plan still sees that its subscription is gone."""
    syncing.use("acme", 7)
    plan(syncing, source)
    source.of.clear()
    syncing.clock.advance(MINUTE)

    plan(syncing, source)

    assert increments(syncing, "state, closes_at") == [("pending", syncing.clock.now())]


def test_what_is_absent_is_sent_anew_in_the_same_minute_and_its_old_minute_stays_taken(
    syncing: Syncing, source: Periods
) -> None:
    syncing.use("acme", 7)
    plan(syncing, source)
    absent = (
        "UPDATE stripe_increment SET state = 'ambiguous', attempts = 1, absence_checks = 2,"
        " first_attempt_at = planned_at, sent_to = 'stand-in', absent_since = planned_at"
    )
    with syncing.engine.begin() as connection:
        connection.execute(sqlalchemy.text(absent))
    syncing.clock.advance(2 * DAY)

    assert plan(syncing, source).reissued == 1

    first, second = syncing.read("SELECT * FROM stripe_generation ORDER BY generation")
    assert (first.event_at, first.period_start) == (second.event_at, second.period_start)
    assert increments(syncing, "units, generation, state, first_attempt_at") == [(7, 2, "pending", None)]

    # Its period closes before it is sent: it moves, and nobody else gets the minute in which it may show after all.
    at(syncing, APRIL + DAY)
    source.put("cus_acme", period(MARCH, APRIL), period(APRIL, MAY))
    assert plan(syncing, source).reissued == 1
    ((generation, start, carries),) = increments(syncing, "generation, period_start, carries_from")
    assert (generation, start) == (3, APRIL)
    assert carries == (MARCH + 2 * DAY).replace(minute=0, second=0)
    log = planner(syncing, source)._log
    with log.planning() as slice_:
        assert slice_ is not None
        (taken,) = slice_.taken([("cus_acme", METER, APRIL + DAY)], most=10)
    assert first.event_at in taken


def test_an_increment_follows_its_client_to_another_customer(syncing: Syncing, source: Periods) -> None:
    """Given a link that was replaced, then what was not sent in time is for the client's present customer."""
    syncing.use("acme", 7)
    plan(syncing, source)
    with syncing.engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE stripe_customer SET customer_id = 'cus_new'"))
        connection.execute(sqlalchemy.text("UPDATE stripe_increment SET closes_at = planned_at"))
    source.put("cus_new", period(FEBRUARY, MARCH + 9 * DAY))

    assert plan(syncing, source).reissued == 1

    assert increments(syncing, "customer_id, generation, period_start") == [("cus_new", 2, FEBRUARY)]


@pytest.mark.parametrize("policy", ["carry_forward", "write_off"])
def test_what_is_not_sent_in_time_goes_by_the_policy(
    syncing: Syncing, source: Periods, policy: StripeLateUsage
) -> None:
    syncing.use("acme", 7)
    plan(syncing, source)
    at(syncing, APRIL + DAY)
    source.put("cus_acme", period(MARCH, APRIL), period(APRIL, MAY))

    plan(syncing, source, policy)

    expected = [("pending", 2, APRIL)] if policy == "carry_forward" else [("written_off", 1, MARCH)]
    assert increments(syncing, "state, generation, period_start") == expected
