"""A fleet never makes more calls in a second than it may, whoever makes them, and hardly fewer (L9)."""

from __future__ import annotations

import bisect
import itertools
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy

from billing.core.clock import SystemClock
from billing.core.settings import Settings
from billing.sinks.stripe.sandbox.control import SandboxControl
from billing.sinks.sync.calling.budget import (
    AHEAD_SECONDS_MAX,
    LAPSE_SECONDS,
    LOST_MAX,
    SPREAD,
    PostgresBudget,
    await_turn,
)
from tests.integration.syncing import at_noon

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


def test_given_processes_that_take_turns_as_fast_as_they_can_then_no_second_has_more_than_allowed(
    engine: sqlalchemy.Engine, database: Settings
) -> None:
    """Given three processes of two threads each, then turns that were used lie as far apart as the rate says."""
    per_second, calls = 50, 60
    command = [sys.executable, "-m", "tests.integration.turns", database.database_url, str(per_second), str(calls)]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    begun = sorted(at for process in processes for at in json.loads(process.communicate(timeout=240)[0]))

    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(begun) == 3 * calls
    assert max(bisect.bisect_left(begun, at + 1.0) - place for place, at in enumerate(begun)) <= per_second


def test_given_a_turn_that_was_missed_then_it_is_lost_and_another_one_is_taken() -> None:
    """A call that comes late would come too close to the next one."""
    clock = SlowClock()
    taken = Taken([0.0, 0.0, 0.0])

    assert await_turn(taken, clock, clock.wait)

    assert taken.taken == 3


def test_given_a_machine_that_misses_every_turn_then_it_gives_up() -> None:
    """L9: waiting ends."""
    clock = SlowClock(late=[1.0] * 1_000)
    taken = Taken([0.0] * 1_000)

    assert not await_turn(taken, clock, clock.wait)

    assert taken.taken == LOST_MAX


def test_given_a_push_that_ends_then_no_turn_is_used() -> None:
    clock = SlowClock(late=[])

    assert not await_turn(Taken([5.0]), clock, clock.wait, lambda: False)

    assert clock.waited == [5.0]


def test_given_turns_then_each_is_a_spread_after_the_one_before_and_names_do_not_share(
    engine: sqlalchemy.Engine,
) -> None:
    budget = PostgresBudget(engine, "events", per_second=1)
    seconds = [budget.take() for _ in range(5)]

    assert seconds[0] == 0.0
    assert all(0 < later - earlier <= SPREAD for earlier, later in itertools.pairwise(seconds))
    assert seconds[4] > 3 * SPREAD
    assert PostgresBudget(engine, "reads", per_second=1).take() == 0.0


def test_given_a_turn_that_no_fleet_can_be_waiting_for_then_the_clock_was_set_back(engine: sqlalchemy.Engine) -> None:
    """L9: a day of waiting is none that anybody asked for."""
    budget = PostgresBudget(engine, "events", per_second=10)
    for ahead, waits in ((timedelta(days=1), False), (timedelta(seconds=AHEAD_SECONDS_MAX / 2), True)):
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("DELETE FROM stripe_budget"))
            at = sqlalchemy.text("INSERT INTO stripe_budget VALUES ('events', now() + :ahead)")
            connection.execute(at, {"ahead": ahead})

        assert (budget.take() > 1) is waits


def test_given_pushers_of_several_processes_then_stripe_never_asks_for_fewer_calls(
    engine: sqlalchemy.Engine, database: Settings, stripe_sandbox: SandboxControl
) -> None:
    """Given a Stripe that answers 429 above the rate, then it answers none, and each increment is sent once (L8)."""
    per_second, clients = 20, 90
    syncing = at_noon(engine, database, stripe_sandbox)
    for number in range(clients):
        syncing.add(f"client-{number:02}", f"cus_{number}")
        syncing.use(f"client-{number:02}", 1)
    syncing.planner().plan()
    stripe_sandbox.knobs(calls_per_second=per_second)
    given = [database.database_url, stripe_sandbox.url, str(per_second), syncing.clock.now().isoformat()]
    command = [sys.executable, "-m", "tests.integration.paced_pusher", *given]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=240)[0].split() for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum(int(sent) for sent, _ in said) == clients
    calls = [call for call in stripe_sandbox.requests() if call["path"].startswith("/v1/")]
    assert [call["status"] for call in calls if call["status"] != 200] == []
    assert {row.attempts for row in syncing.read("SELECT attempts FROM stripe_increment")} == {1}
    assert syncing.states() == {"sent": clients}


class Taken:
    """A budget whose turns are known."""

    def __init__(self, seconds: list[float]) -> None:
        self._seconds, self.taken = seconds, 0

    def take(self) -> float:
        """Return when the next one is."""
        self.taken += 1
        return self._seconds[self.taken - 1]


class SlowClock(SystemClock):
    """A clock on which each turn is missed by some time; the first two are, unless told otherwise."""

    def __init__(self, late: list[float] | None = None) -> None:
        self._late = [LAPSE_SECONDS * 2, LAPSE_SECONDS * 1.1, 0.0] if late is None else late
        self._looks, self._at = 0, 0.0
        self.waited: list[float] = []

    def monotonic(self) -> float:
        """Return a time that each second look finds moved on."""
        self._looks += 1
        if self._looks % 2 == 0:
            self._at += self._late[self._looks // 2 - 1]
        return self._at

    def wait(self, seconds: float) -> None:
        """Note it."""
        self.waited.append(seconds)
