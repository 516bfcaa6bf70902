"""Corrections on their way to Stripe: what is returned makes increments smaller, and never one below 0 (L8)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy

from billing import admin
from billing.admin.receipt_line import ReceiptLine
from billing.core.clock import to_milliseconds
from billing.core.settings import Settings
from billing.fulfillment.log import UsageLog
from billing.reconciliation.reading import invoice_facts, log_facts
from billing.sinks.stripe.links import link
from billing.sinks.sync.planning.planner import Planner
from billing.sinks.sync.postgres.planning import PostgresPlanningLog
from billing.sinks.sync.telling.status import read_status
from tests.integration.adjusting import charge, correct, logged
from tests.integration.consuming import query
from tests.integration.granting import balance_of, grant
from tests.integration.posting import assert_at_work
from tests.integration.recovering import Business
from tests.integration.syncing import CALENDAR, TestClock
from tests.usage_events import delivered, paid_line, usage_event

pytestmark = pytest.mark.integration

OCTOBER, NOVEMBER = datetime(2026, 10, 20, 14, tzinfo=UTC), datetime(2026, 11, 2, 9, tzinfo=UTC)


def link_to_stripe(engine: sqlalchemy.Engine) -> None:
    """Link acme to a customer."""
    with engine.begin() as connection:
        link(connection, "acme", "cus_acme")


def plan(engine: sqlalchemy.Engine, now: datetime | None = None) -> list[int]:
    """Plan; return the units of the increments that this made."""
    before = _increments(engine)
    Planner(PostgresPlanningLog(engine), TestClock(now or datetime.now(UTC)), CALENDAR).plan()
    return _increments(engine)[len(before) :]


def _increments(engine: sqlalchemy.Engine) -> list[int]:
    with engine.connect() as connection:
        found = connection.execute(sqlalchemy.text("SELECT units FROM stripe_increment ORDER BY increment_id"))
        return list(found.scalars())


def carried(engine: sqlalchemy.Engine) -> int:
    """Return what `sync status` says was returned beyond what was used since."""
    with engine.connect() as connection:
        return read_status(connection, datetime.now(UTC), Settings()).carried.credits


def reported(lines: Sequence[ReceiptLine]) -> dict[int, int]:
    """Return what each increment carries of these lines."""
    found: Counter[int] = Counter()
    for line in lines:
        for part in line.reported:
            found[part.increment_id] += part.credits
    return dict(found)


def test_what_is_returned_of_a_reported_line_is_carried_until_later_usage_outweighs_it(business: Business) -> None:
    """Given a reported charge, when it is corrected, then nothing below 0 is sent, and later usage is reported less."""
    engine = business.runtime.engine
    link_to_stripe(engine)
    grant(business, 1_000, "k")
    run = charge(business, 40, "a")
    assert plan(engine) == [40]

    found = correct(business, run, -25)
    assert plan(engine) == []
    assert carried(engine) == 25
    month = found.created_at
    lines = list(admin.receipt(business.settings, "acme", month - timedelta(days=2), month + timedelta(days=2)))
    assert [(line.credits, line.unreported) for line in lines] == [(40, 0), (-25, -25)]
    assert (lines[1].corrected, lines[1].reporting) == (f"{run}/0", "not yet reported")
    assert_at_work(business)

    charge(business, 10, "b")
    assert plan(engine) == []
    assert carried(engine) == 15
    charge(business, 30, "c")
    assert plan(engine) == [15]
    assert carried(engine) == 0
    balance = assert_at_work(business)

    lines = list(admin.receipt(business.settings, "acme", month - timedelta(days=2), month + timedelta(days=2)))
    assert [line.unreported for line in lines] == [0, 0, 0, 0]
    assert list(reported(lines).values()) == [40, 15]
    assert sum(line.credits for line in lines) == balance.spent == sum(logged(business).values()) == 55


def test_what_is_returned_of_a_line_that_was_not_reported_makes_its_increment_smaller(business: Business) -> None:
    engine = business.runtime.engine
    link_to_stripe(engine)
    grant(business, 1_000, "k")
    run = charge(business, 40, "a")
    correct(business, run, -25)
    assert plan(engine) == [15]
    # What is charged more is used: it is reported as such.
    correct(business, run, 5)
    assert plan(engine) == [5]
    assert (carried(engine), balance_of(business).spent) == (0, 20)
    assert_at_work(business)


def test_what_a_month_leaves_below_0_is_carried_by_the_next_one_and_both_receipts_name_it(
    database: Settings,
    engine: sqlalchemy.Engine,
    session: psycopg.Connection[Any],
    log: UsageLog,
    clients: Callable[..., None],
) -> None:
    """Given an October in which more was returned than used, then November's increment is so much smaller."""
    clients("acme")
    link_to_stripe(engine)

    def use(credits_: int, at: datetime) -> None:
        milliseconds = to_milliseconds(at)
        line = paid_line("page", 1, [(1, credits_)])
        log.write([delivered(usage_event(lines=[line], occurred_at=milliseconds, at_milliseconds=milliseconds))])

    use(4, OCTOBER)
    session.execute(
        "INSERT INTO usage_history (run_id, line, settlement_id, client_id, correlation_id, root_id, task, attempt,"
        " sku, quantity, credits, grants, epoch, price_version, occurred_at, corrects, corrects_line)"
        " SELECT %s, 0, 'correction', client_id, correlation_id, root_id, task, 1, sku, 0, -9,"
        """ '[{"grant": 1, "credits": -9}]', 0, 1, occurred_at, run_id, 0 FROM usage_history""",
        [usage_event(at_milliseconds=to_milliseconds(OCTOBER)).run_id],
    )
    session.execute("UPDATE usage_rollup SET credits = credits - 9, returned = 9")
    session.execute("UPDATE grant_spent SET credits = credits - 9")
    assert plan(engine, NOVEMBER) == []
    use(20, NOVEMBER - timedelta(hours=1))
    assert plan(engine, NOVEMBER) == [15]

    with engine.connect() as connection:
        facts = invoice_facts(connection, ["acme"], log_facts(connection, ["acme"]))["acme"]
    assert (facts.differing_rows, facts.differing_increments) == ((), ())
    assert (facts.credits, facts.planned, facts.logged) == (15, 15, 15)
    months = [list(admin.receipt(database, "acme", datetime(2026, month, 1, tzinfo=UTC), None)) for month in (10, 11)]
    admin.close(database)
    (increment,) = session.execute("SELECT increment_id FROM stripe_increment").fetchall()
    assert [reported(lines) for lines in months] == [{increment[0]: -5}, {increment[0]: 20}]
    assert not any(line.unreported for lines in months for line in lines)


def test_a_sum_of_corrections_that_is_not_the_logs_is_named(business: Business) -> None:
    """L7: the rollup tells what was returned apart, and reconciliation compares it."""
    grant(business, 1_000, "k")
    correct(business, charge(business, 40, "a"), -25)
    with business.runtime.engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE usage_rollup SET returned = 24"))
    with pytest.raises(AssertionError, match="of corrections 25 and 24 returned"):
        assert_at_work(business)
    assert query(business.settings, "SELECT credits FROM usage_rollup") == [(15,)]
