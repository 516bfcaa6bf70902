"""Plans by subscription: each hour in its own period's increment, late usage by the policy, none waits unseen."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
import sqlalchemy

from billing.core.errors import Rejected, Unreachable
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


def test_usage_around_an_odd_second_is_in_the_period_that_its_hour_is_of(syncing: Syncing, source: Periods) -> None:
    """Given a boundary at 14:37:12, then the hour 13 is of the old period, 14 of the new, and neither of both."""
    at(syncing, APRIL + 10 * MINUTE)
    source.put("cus_acme", period(MARCH, APRIL), period(APRIL, MAY))
    syncing.use("acme", 7, hour=BOUNDARY - HOUR)
    syncing.use("acme", 5, hour=BOUNDARY)

    assert plan(syncing, source).increments == 2

    assert increments(syncing) == [
        (7, MARCH, APRIL.replace(minute=36, second=30)),
        (5, APRIL, APRIL.replace(minute=46, second=30)),
    ]
    assert plan(syncing, source).increments == 0


def test_the_first_hour_of_a_period_waits_until_it_has_begun(syncing: Syncing, source: Periods) -> None:
    at(syncing, APRIL - 10 * MINUTE)
    syncing.use("acme", 5, hour=BOUNDARY)

    report = plan(syncing, source)
    assert (report.increments, report.waiting) == (0, {"its period has not begun": 1})
    at(syncing, APRIL + 2 * MINUTE)
    source.put("cus_acme", period(MARCH, APRIL), period(APRIL, MAY))
    assert plan(syncing, source).units == 5
    assert increments(syncing, "period_start") == [(APRIL,)]


@pytest.mark.parametrize("policy", ["carry_forward", "invoice_item", "write_off"])
def test_usage_that_comes_after_its_period_has_closed_goes_by_the_policy(
    syncing: Syncing, source: Periods, policy: StripeLateUsage
) -> None:
    """Given usage of March that is written in May, then it is carried, an item of its own, or written off."""
    at(syncing, APRIL + 2 * DAY)
    source.put("cus_acme", period(MARCH, APRIL), period(APRIL, MAY))
    late = MARCH.replace(minute=0, second=0) + 3 * DAY
    syncing.use("acme", 7, hour=late)
    syncing.use("acme", 5)

    report = plan(syncing, source, policy)

    found = increments(syncing, "units, kind, state, period_start, carries_from, closes_at")
    present = period(APRIL, MAY).closes_at
    assert (
        found
        == {
            "carry_forward": [(12, "meter_event", "pending", APRIL, late, present)],
            "invoice_item": [
                (7, "invoice_item", "pending", MARCH, None, None),
                (5, "meter_event", "pending", APRIL, None, present),
            ],
            "write_off": [
                (7, "meter_event", "written_off", MARCH, None, None),
                (5, "meter_event", "pending", APRIL, None, present),
            ],
        }[policy]
    )
    assert report.written_off == (policy == "write_off")
    stamped = [event_at for (event_at,) in increments(syncing, "event_at")]
    assert len(set(stamped)) == len(stamped)


def test_usage_of_no_known_period_waits_for_one_and_is_carried_into_it(syncing: Syncing, source: Periods) -> None:
    """Given a client without a subscription, then its usage waits, says why, and is sent once there is one."""
    source.of.clear()
    syncing.use("acme", 7, hour=MARCH - 3 * DAY)

    report = plan(syncing, source)
    assert (report.increments, report.waiting) == (0, {"has no subscription": 1})

    syncing.clock.advance(MINUTE)
    source.put("cus_acme", period(MARCH, APRIL))
    report = plan(syncing, source)
    assert (report.units, report.waiting) == (7, {})
    assert increments(syncing, "period_start, carries_from") == [(MARCH, (MARCH - 3 * DAY).replace(minute=0, second=0))]


def test_usage_after_a_cancellation_waits_and_the_last_hours_are_sent_before_it(
    syncing: Syncing, source: Periods
) -> None:
    """Given a subscription that ends with its period, then nothing is sent from ten minutes before its end on."""
    source.put("cus_acme", period(MARCH, APRIL, ended=True))
    at(syncing, APRIL - 11 * MINUTE)
    syncing.use("acme", 7, hour=BOUNDARY)
    assert plan(syncing, source).units == 7
    with syncing.engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE stripe_increment SET state = 'confirmed'"))
    at(syncing, APRIL - 9 * MINUTE)
    syncing.use("acme", 5, hour=BOUNDARY)

    report = plan(syncing, source)
    assert (report.increments, sum(report.waiting.values())) == (0, 1)
    at(syncing, APRIL + 9 * DAY)
    again = period(APRIL + 8 * DAY, MAY + 8 * DAY)
    source.put("cus_acme", again)
    assert plan(syncing, source).units == 5
    assert increments(syncing, "units, period_start") == [(7, MARCH), (5, again.start)]


def test_usage_that_is_older_than_stripe_takes_is_stamped_later_in_its_own_open_period(
    syncing: Syncing, source: Periods
) -> None:
    """Given a period of a year, then usage of its first day has a free minute of the last 34 days, in that period."""
    yearly = period(MARCH, MARCH.replace(year=2027))
    source.put("cus_acme", yearly)
    at(syncing, MARCH + 200 * DAY)
    syncing.use("acme", 7, hour=MARCH + DAY)

    assert plan(syncing, source).units == 7

    ((start, event_at, carries),) = increments(syncing, "period_start, event_at, carries_from")
    assert (start, carries) == (MARCH, None)
    assert event_at == (syncing.clock.now() - MINUTE / 2).replace(second=30)


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


def test_one_customers_error_delays_no_other_and_a_silent_sink_leaves_what_is_known(
    syncing: Syncing, source: Periods
) -> None:
    """L10: who cannot be read waits; who is known is planned though nobody answers."""
    syncing.add("globex", "cus_globex")
    for client_id in ("acme", "globex"):
        syncing.use(client_id, 7)
    source.refused["cus_globex"] = Rejected("no such customer: 'cus_globex'")

    report = plan(syncing, source)
    assert (report.units, report.periods_read, report.waiting) == (7, 1, {"no billing period is open": 1})

    syncing.clock.advance(MINUTE)
    syncing.use("acme", 5)
    source.silent = Unreachable("nobody answers")
    report = plan(syncing, source)
    assert (report.units, report.unread) == (5, "nobody answers")


def test_a_plan_reads_a_customer_once_and_those_without_a_present_period_first(
    syncing: Syncing, source: Periods
) -> None:
    for name in ("b", "c"):
        syncing.add(name, f"cus_{name}")
        syncing.use(name, 1)
        source.put(f"cus_{name}", period(MARCH, APRIL))
    plan(syncing, source)
    assert source.asked == ["cus_b", "cus_c"]
    source.asked.clear()
    at(syncing, APRIL + 2 * DAY)
    source.of = {name: {METER: [period(APRIL, MAY)]} for name in ("cus_acme", "cus_c", "cus_b")}
    for name in ("acme", "b", "c"):
        syncing.use(name, 1)
    plan(syncing, source)
    assert source.asked == ["cus_acme", "cus_b", "cus_c"]
    source.asked.clear()

    assert plan(syncing, source).increments == 0
    assert source.asked == []


def test_meters_have_periods_units_and_increments_of_their_own(syncing: Syncing, source: Periods) -> None:
    """Given a SKU of another meter, whose unit is 10 credits, then whole units go to it, and the rest stays."""
    with syncing.engine.begin() as connection:
        connection.execute(sqlalchemy.text("INSERT INTO meter (event_name, credits_per_unit) VALUES ('searches', 10)"))
        connection.execute(sqlalchemy.text("INSERT INTO sku_meter (sku, event_name) VALUES ('search', 'searches')"))
    source.put("cus_acme", period(FEBRUARY, MAY), meter="searches")
    syncing.use("acme", 7)
    syncing.use("acme", 37, sku="search")

    assert plan(syncing, source).increments == 2
    found = increments(syncing, "event_name, units, credits_per_unit, period_start")
    assert sorted(found, key=str) == [(METER, 7, 1, MARCH), ("searches", 3, 10, FEBRUARY)]
    assert plan(syncing, source).increments == 0
    syncing.use("acme", 3, sku="search", hour=syncing.clock.now() - HOUR)
    assert plan(syncing, source).units == 1
    (row,) = syncing.read("SELECT sum(credits) AS used, sum(planned) AS planned FROM usage_rollup WHERE sku = 'search'")
    assert (row.used, row.planned) == (40, 40)


def test_a_clock_that_was_set_back_plans_nothing_into_the_future_and_reads_again(
    syncing: Syncing, source: Periods
) -> None:
    syncing.use("acme", 7)
    plan(syncing, source)
    syncing.clock.advance(-DAY)
    syncing.use("acme", 5)

    assert plan(syncing, source).units == 5

    assert source.asked == ["cus_acme", "cus_acme"]
    (latest,) = syncing.read("SELECT event_at FROM stripe_increment ORDER BY increment_id DESC LIMIT 1")
    assert latest.event_at <= syncing.clock.now()
    syncing.clock.advance(-30 * DAY)
    syncing.use("acme", 3, hour=MARCH + DAY)
    assert plan(syncing, source).increments == 0


def test_a_slice_of_one_large_client_is_read_whole_and_makes_one_increment(syncing: Syncing, source: Periods) -> None:
    """Given more rows of a client than a slice holds, then it still has one increment; beyond the bound, a few."""
    for name in ("b", "c"):
        syncing.add(name, f"cus_{name}")
        source.put(f"cus_{name}", period(MARCH, APRIL))
    for name in ("acme", "b", "c"):
        for hours in range(9):
            syncing.use(name, 10, hour=syncing.clock.now() - hours * HOUR)

    report = planner(syncing, source, rows=4).plan()
    assert (report.increments, report.clients, report.units) == (3, 3, 270)

    for hours in range(9):
        syncing.use("b", 10, hour=syncing.clock.now() - hours * HOUR)
    report = planner(syncing, source, rows=4, rows_max=4).plan()
    assert (report.increments, report.clients, report.units) == (3, 1, 90)
    syncing.laws()


def test_less_than_a_unit_in_more_rows_than_are_read_at_once_keeps_no_other_client_waiting(
    syncing: Syncing, source: Periods
) -> None:
    """L10: a client whose rows never make a unit is passed over."""
    with syncing.engine.begin() as connection:
        connection.execute(sqlalchemy.text("INSERT INTO meter (event_name, credits_per_unit) VALUES ('searches', 100)"))
        connection.execute(sqlalchemy.text("INSERT INTO sku_meter (sku, event_name) VALUES ('search', 'searches')"))
    source.put("cus_acme", period(MARCH, APRIL), meter="searches")
    syncing.add("b", "cus_b")
    source.put("cus_b", period(MARCH, APRIL))
    for hours in range(9):
        syncing.use("acme", 1, sku="search", hour=syncing.clock.now() - hours * HOUR)
    syncing.use("b", 5)

    report = planner(syncing, source, rows=4, rows_max=4).plan()

    assert (report.increments, report.units) == (1, 5)


def test_reading_is_not_begun_by_who_does_not_lead(syncing: Syncing, source: Periods) -> None:
    syncing.use("acme", 7)
    with planner(syncing, source)._log.planning() as leading:
        assert leading is not None
        report = planner(syncing, source).plan()

    assert (report.busy, source.asked) == (True, [])


def test_a_plan_of_one_client_leaves_the_others(syncing: Syncing, source: Periods) -> None:
    syncing.add("b", "cus_b")
    source.put("cus_b", period(MARCH, APRIL))
    for name in ("acme", "b"):
        syncing.use(name, 7)

    report = planner(syncing, source).plan(client_id="b")

    assert (report.increments, source.asked) == (1, ["cus_b"])
    assert increments(syncing, "client_id") == [("b",)]
    assert dataclasses.replace(report, clients=0, increments=0, units=0, periods_read=0) == dataclasses.replace(
        report, clients=0, increments=0, units=0, periods_read=0, waiting={}
    )
