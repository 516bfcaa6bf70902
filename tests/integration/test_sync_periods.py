"""Plans by subscription: each hour in its own period's increment, late usage by the policy, none waits unseen."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy

from billing.core.settings import Settings, StripeLateUsage
from tests.integration.subscribed import APRIL, FEBRUARY, MARCH, MAY, Periods, at, period, plan
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
    assert (report.increments, report.waiting) == (0, {"its period has not begun (meter billing_credits)": 1})
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
