"""Plans in slices: whose periods are read, which clients are in one, and that none keeps another waiting (L10)."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
import sqlalchemy

from billing.core.errors import Rejected, Unreachable
from billing.core.settings import Settings
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
