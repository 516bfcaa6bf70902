"""A clock that was far ahead for a moment: what was planned or sent by it does not wait until that time has come."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy

from billing.core.settings import Settings
from billing.sinks.sync.postgres.log import PostgresLog
from billing.sinks.sync.resolving import Resolution, resolve
from tests.integration.syncing import Syncing, TestClock

pytestmark = pytest.mark.integration

YEAR = timedelta(days=365)


@pytest.fixture
def syncing(engine: sqlalchemy.Engine, database: Settings) -> Syncing:
    found = Syncing(engine=engine, settings=database, clock=TestClock())
    found.add("acme", "cus_acme")
    found.use("acme", 7, hour=found.clock.now() - timedelta(hours=2))
    return found


@pytest.mark.parametrize("ahead", [timedelta(days=3), YEAR])
def test_what_a_clock_that_was_ahead_planned_is_planned_anew(syncing: Syncing, ahead: timedelta) -> None:
    """Given a plan by a clock three days or a year ahead, when it is set back, then the next plan mends it."""
    month = syncing.clock.now().replace(day=1, hour=0)
    syncing.clock.advance(ahead)
    assert syncing.planner().plan().units == 7
    syncing.clock.advance(-ahead)

    assert syncing.planner().plan().reissued == 1
    assert syncing.planner().plan().reissued == 0

    ((start, event_at, state),) = syncing.read("SELECT period_start, event_at, state FROM stripe_increment")
    assert (start, state) == (month, "pending")
    assert event_at <= syncing.clock.now()
    syncing.laws()


def test_what_a_clock_that_was_ahead_sent_is_for_a_person_to_resolve(syncing: Syncing) -> None:
    syncing.planner().plan()
    log = PostgresLog(syncing.engine)
    ((number,),) = syncing.read("SELECT increment_id FROM stripe_increment")
    syncing.clock.advance(YEAR)
    with syncing.engine.begin() as connection:
        connection.execute(
            sqlalchemy.text(
                "UPDATE stripe_increment SET state = 'ambiguous', attempts = 1, first_attempt_at = :at,"
                " last_attempt_at = :at, sent_to = 'stand-in'"
            ),
            {"at": syncing.clock.now()},
        )
    syncing.clock.advance(-YEAR)
    now = syncing.clock.now()
    said = Resolution(resolved_as="write-off", reason="seen", resolved_at=now)

    assert resolve(log, number, said).state.value == "written_off"
