"""A planner that is killed anywhere, or meets another one, plans nothing twice and loses nothing (L8)."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy

from billing.core.settings import Settings
from tests.integration.killed_planner import STEPS
from tests.integration.subscribed import APRIL, MARCH, MAY, Periods, at, period, plan, planner
from tests.integration.syncing import Syncing, TestClock
from tests.sessions import wait_for_the_dead

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def syncing(engine: sqlalchemy.Engine, database: Settings) -> Syncing:
    return Syncing(engine=engine, settings=database, clock=TestClock(MARCH + 2 * DAY))


@pytest.mark.parametrize("step", STEPS)
def test_given_a_planner_killed_at_any_step_when_planned_again_then_each_credit_is_planned_once(
    syncing: Syncing, step: str
) -> None:
    """Given usage, and an increment whose period has closed, then the next plan does all that the dead one had not."""
    source = Periods()
    source.put("cus_acme", period(MARCH, APRIL))
    syncing.add("acme", "cus_acme")
    syncing.use("acme", 7)
    plan(syncing, source)
    at(syncing, APRIL + DAY)
    syncing.use("acme", 5)
    settings = {"database_url": syncing.settings.database_url}
    said = {"cus_acme": [APRIL.isoformat(), MAY.isoformat()]}
    now = syncing.clock.now().isoformat()
    command = [sys.executable, "-m", "tests.integration.killed_planner", json.dumps(settings), step, now]
    died = subprocess.run(
        [*command, json.dumps(said)], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    wait_for_the_dead(syncing.settings.database_url)
    syncing.laws()
    before = syncing.read("SELECT units, generation FROM stripe_increment ORDER BY increment_id")
    reissued = step in ("unplanned", "write", "advance", "commit")
    assert before == [(7, 2 if reissued else 1)]

    syncing.clock.advance(HOUR)
    source.put("cus_acme", period(APRIL, MAY))
    report = plan(syncing, source)

    assert (report.reissued, report.units) == (0 if reissued else 1, 5)
    after = syncing.read("SELECT units, generation, period_start FROM stripe_increment ORDER BY increment_id")
    assert after == [(7, 2, APRIL), (5, 1, APRIL)]
    assert len(syncing.read("SELECT FROM stripe_generation")) == 3
    assert syncing.read("SELECT FROM usage_rollup WHERE unplanned") == []


def test_given_planners_at_once_then_each_credit_is_planned_and_each_increment_reissued_once(
    syncing: Syncing,
) -> None:
    source = Periods()
    for number in range(20):
        syncing.add(f"client-{number:02}", f"cus_{number}")
        syncing.use(f"client-{number:02}", number + 1)
        source.put(f"cus_{number}", period(MARCH, APRIL))
    plan(syncing, source)
    at(syncing, APRIL + DAY)
    for number in range(20):
        syncing.use(f"client-{number:02}", 1)
        source.put(f"cus_{number}", period(MARCH, APRIL), period(APRIL, MAY))

    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: planner(syncing, source, rows=7).plan(), range(4)))

    left = plan(syncing, source)
    assert sum(report.units for report in [*reports, left]) == 20
    assert sum(report.reissued for report in [*reports, left]) == 20
    found = syncing.read("SELECT generation, count(*) AS n, sum(units) AS units FROM stripe_increment GROUP BY 1")
    assert {row.generation: (row.n, row.units) for row in found} == {1: (20, 20), 2: (20, 210)}
