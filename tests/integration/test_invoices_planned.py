"""What the planner itself leaves holds the laws: late usage by every policy, meters with a unit, anchors in an hour."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from billing.core.settings import Settings, StripeLateUsage
from billing.reconciliation import reading
from billing.reconciliation.laws import planned
from billing.sinks.sync.planning.planner import Planner, PlanRules
from billing.sinks.sync.postgres.log import PostgresLog
from tests.integration.invoicing import METER, Invoicing, invoicing_on
from tests.integration.syncing import TestClock

pytestmark = pytest.mark.integration

NOW = datetime.now(UTC)
TURN = (NOW - timedelta(days=5)).replace(minute=30, second=12, microsecond=0)
BEFORE, NEXT = TURN - timedelta(days=10), TURN + timedelta(days=25)


@pytest.fixture
def books(database: Settings) -> Iterator[Invoicing]:
    """Open books of a client of two meters, whose last period has closed."""
    with invoicing_on(database) as opened:
        opened.client("acme", "cus_acme")
        opened.sql("INSERT INTO meter (event_name, credits_per_unit) VALUES ('tokens', 1000)")
        opened.sql("INSERT INTO sku_meter (sku, event_name) VALUES ('token', 'tokens')")
        for meter in (METER, "tokens"):
            opened.period("cus_acme", BEFORE, TURN, meter=meter)
            opened.period("cus_acme", TURN, NEXT, meter=meter)
        opened.sql("UPDATE stripe_period SET closes_at = period_end + interval '1 hour'")
        yield opened


def differences(books: Invoicing) -> list[str]:
    """Return what the law of increments finds."""
    with reading.snapshot(books.settings, books.runtime.engine) as connection:
        log = reading.log_facts(connection, ["acme"])
        facts = reading.invoice_facts(connection, ["acme"], log)["acme"]
    return [found.found for found in planned.differences(facts)]


@pytest.mark.parametrize("late_usage", get_args(StripeLateUsage))
def test_given_any_policy_when_planned_then_every_credit_is_in_one_place_and_nothing_is_odd(
    books: Invoicing, late_usage: StripeLateUsage
) -> None:
    """Given usage around the hour of the turn, of both meters, planned in two goes with a return in between."""
    planner = Planner(
        PostgresLog(books.runtime.engine), TestClock(NOW), PlanRules(meter=METER, calendar=False, late_usage=late_usage)
    )
    for hours, credits_ in ((-50, 7), (-1, 5), (0, 3), (30, 11)):
        books.use("acme", credits_, TURN + timedelta(hours=hours))
        books.use("acme", credits_ * 333, TURN + timedelta(hours=hours), sku="token")
    planner.plan()
    books.give_back("acme", 2, TURN + timedelta(hours=30))
    books.use("acme", 900, TURN + timedelta(hours=40), sku="token")
    books.use("acme", 40, TURN + timedelta(hours=40))
    planner.plan()

    rows = books.rows()

    assert differences(books) == []
    assert [row.says for row in rows if row.differs] == []
    assert sum(row.log for row in rows) == 26 - 2 + 26 * 333 + 900 + 40
    tokens = sum(row.unplanned for row in rows if row.event_name == "tokens")
    assert (tokens, sum(row.unplanned for row in rows) - tokens) == ((26 * 333 + 900) % 1_000, 0)
    old = [row for row in rows if row.period_start == BEFORE]
    column = {"carry_forward": "carried", "invoice_item": "planned", "write_off": "written_off"}[late_usage]
    assert all(getattr(row, column) for row in old), old
