"""Allowances: each period is granted exactly once, by whoever comes, however late, and one client delays no other."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from billing import admin
from billing.core.errors import InvalidValue
from billing.core.limits import USABLE_GRANTS_MAX
from billing.ledger import schedules
from billing.recovery.allowances import PERIODS_MAX, grant_allowances
from billing.recovery.grants import apply_grants
from billing.task.runtime import Runtime
from tests.integration.allowing import APRIL, FEBRUARY, MARCH, NOON, Office
from tests.sessions import wait_for_the_dead

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


def test_a_month_is_granted_when_it_begins_and_expires_when_it_ends(office: Office) -> None:
    """Given an allowance from January 31st, when beat looks often, then each month has its one grant, in the bucket."""
    office.add("acme")
    for instant in (NOON, NOON + timedelta(days=1), FEBRUARY - timedelta(seconds=1), FEBRUARY, FEBRUARY, MARCH):
        office.clock.at = instant
        grant_allowances(office.runtime)

    assert office.grants() == [(100, FEBRUARY), (100, MARCH), (100, APRIL)]
    assert apply_grants(office.runtime) == 3
    balance = office.runtime.buckets.balance("acme")
    assert balance is not None
    assert balance.available == 300  # by Redis' clock none has expired yet
    entries = office.rows("SELECT kind, credits, reason FROM ledger_entry ORDER BY entry_id")
    assert entries == [("grant", 100, "allowance 1")] * 3


def test_threads_that_look_at_once_grant_once(office: Office) -> None:
    """Given 10 clients and 8 runners that begin together, then each client has one grant of each period."""
    clients = [office.client(f"client-{number}") for number in range(10)]
    for client_id in clients:
        office.add(client_id, every="day")
    runners = [Runtime(lambda: office.settings, office.clock) for _ in range(8)]
    together = threading.Barrier(len(runners))

    def look(runner: Runtime) -> int:
        together.wait()
        return grant_allowances(runner)

    made = 0
    with ThreadPoolExecutor(len(runners)) as pool:
        for day in range(2):
            # The second time, what found its client locked for too long has its turn.
            for minutes in (0, 2):
                office.clock.at = NOON + timedelta(days=day, minutes=minutes)
                made += sum(pool.map(look, runners))
            assert made == (day + 1) * len(clients)
    for runner in runners:
        runner.close()

    counted = office.rows("SELECT client_id, count(*), count(DISTINCT expires_at) FROM credit_grant GROUP BY 1")
    assert sorted(counted) == sorted((client_id, 2, 2) for client_id in clients)


@pytest.mark.parametrize(("point", "there"), [("before commit", 0), ("after commit", 1)])
def test_a_runner_that_is_killed_grants_once_in_the_end(office: Office, point: str, there: int) -> None:
    """Given SIGKILL around the commit, when the next one looks, then the period has exactly one grant."""
    office.add("acme")
    given = json.dumps({"database_url": office.settings.database_url, "redis_url": office.settings.redis_url})
    command = [sys.executable, "-m", "tests.integration.killed_granter", given, point, NOON.isoformat()]
    died = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    wait_for_the_dead(office.settings.database_url)
    assert len(office.grants()) == there

    assert grant_allowances(office.runtime) == 1 - there

    assert office.grants() == [(100, FEBRUARY)]


@pytest.mark.parametrize(("rollover", "months"), [(0, [5]), (2, [3, 4, 5]), (None, [0, 1, 2, 3, 4, 5])])
def test_missed_periods_are_granted_as_far_as_they_are_usable(
    office: Office, rollover: int | None, months: list[int]
) -> None:
    """Given beat that was down for five months, then what would still be usable is granted, and nothing else."""
    made = office.add("acme", rollover=rollover)
    office.clock.at = made.cycle.start_of(5) + timedelta(days=3)

    assert grant_allowances(office.runtime) == len(months)
    assert grant_allowances(office.runtime) == 0

    assert [expires for _, expires in office.grants()] == [made.cycle.period(number).expires_at for number in months]
    assert office.row(made.schedule_id).next_at == made.cycle.start_of(6)


def test_l9_a_long_pause_is_made_up_a_few_periods_at_a_time(office: Office) -> None:
    made = office.add("acme", every="day", rollover=60)
    office.clock.at = made.cycle.start_of(PERIODS_MAX + 2)
    assert [grant_allowances(office.runtime) for _ in range(3)] == [PERIODS_MAX, 3, 0]


def test_a_suspended_client_is_granted_and_closing_ends_it_for_good(office: Office) -> None:
    made = office.add("acme")
    admin.set_client_state(office.settings, "acme", "suspended")
    assert grant_allowances(office.runtime) == 1

    admin.set_client_state(office.settings, "acme", "closed")
    admin.set_client_state(office.settings, "acme", "active")
    office.clock.at = FEBRUARY

    assert grant_allowances(office.runtime) == 0
    found = office.row(made.schedule_id)
    assert (found.state, found.reason) == ("ended", "the client was closed")
    with pytest.raises(InvalidValue, match="has ended already: the client was closed"):
        admin.end_allowance(office.settings, made.schedule_id)


def test_l10_a_client_that_takes_no_more_keeps_nobody_waiting_and_gets_its_grant_later(office: Office) -> None:
    """Given a client with 64 usable grants, then its allowance says why and is tried again, and others are granted."""
    office.client("globex")
    for number in range(USABLE_GRANTS_MAX):
        row, _ = admin.grant(office.settings, "acme", 1, key=f"k-{number}")
    full = office.add("acme")
    office.add("globex")

    assert grant_allowances(office.runtime) == 1
    assert [len(office.grants(name)) for name in ("acme", "globex")] == [USABLE_GRANTS_MAX, 1]
    waits = office.row(full.schedule_id)
    assert (waits.failures, waits.next_at) == (1, NOON + timedelta(minutes=1))
    assert "64 grants with credits left" in waits.reason

    admin.void(office.settings, row.grant_id)
    assert grant_allowances(office.runtime) == 0
    office.clock.at += timedelta(minutes=1)
    assert grant_allowances(office.runtime) == 1
    done = office.row(full.schedule_id)
    assert (done.failures, done.reason, done.next_at) == (0, "", FEBRUARY)


def test_grants_that_repaid_debt_leave_room_for_an_allowance(office: Office) -> None:
    """Given 64 grants of which nothing is left, since they repaid debt, when a period begins, then it is granted."""
    admin.adjust_credits(office.settings, "acme", -USABLE_GRANTS_MAX, key="debt", reason="a chargeback")
    for number in range(USABLE_GRANTS_MAX):
        admin.grant(office.settings, "acme", 1, key=f"k-{number}")
    office.add("acme")
    assert grant_allowances(office.runtime) == 1


def test_l10_a_client_that_is_locked_keeps_nobody_waiting(office: Office, session: psycopg.Connection[Any]) -> None:
    """Given a client's row that somebody locked for long, then its allowance is put off, and others are granted."""
    office.client("globex")
    held = office.add("acme")
    office.add("globex")
    with session.transaction():
        session.execute("SELECT FROM client WHERE client_id = 'acme' FOR UPDATE")
        assert grant_allowances(office.runtime) == 1
    assert office.row(held.schedule_id).reason == "somebody else has locked it"
    assert [len(office.grants(name)) for name in ("acme", "globex")] == [0, 1]

    office.clock.at += timedelta(minutes=1)
    assert grant_allowances(office.runtime) == 1


def test_l9_the_pause_after_failures_grows_to_an_hour() -> None:
    pauses = [schedules.pause_after(failures).total_seconds() for failures in (1, 2, 3, 6, 7, 1_000)]
    assert pauses == [60, 120, 240, 1_920, 3_600, 3_600]
