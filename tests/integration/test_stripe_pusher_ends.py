"""A pusher that is killed, cut off, paused or interrupted doubles nothing, loses nothing, and stops soon (L8, L9)."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy

from billing.core.settings import Settings
from billing.sinks.sink import Payload, Reply
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.keys import KeyKind
from billing.sinks.stripe.sandbox.control import SandboxControl
from billing.sinks.sync.calling.course import Course
from billing.sinks.sync.calling.pusher import THREADS, Pusher
from billing.sinks.sync.protocol import LEASE
from tests.integration.syncing import METER, NOON, Syncing, TestClock, at_noon
from tests.sessions import wait_for_the_dead

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


@pytest.fixture
def syncing(engine: sqlalchemy.Engine, database: Settings, stripe_sandbox: SandboxControl) -> Syncing:
    return at_noon(engine, database, stripe_sandbox)


@pytest.mark.parametrize(("point", "counted"), [("before call", 0), ("after call", 7)])
def test_given_a_pusher_killed_around_its_call_when_pushed_again_then_counted_once(
    syncing: Syncing, stripe_sandbox: SandboxControl, point: str, counted: int
) -> None:
    """Its attempt is on record before the call; while its lease lasts nobody touches the increment."""
    made = syncing.planned()
    _killed(syncing, point)

    assert stripe_sandbox.total(made, METER) == counted
    assert syncing.states() == {"sending": 1}
    assert syncing.read("SELECT outcome FROM stripe_attempt") == [(None,)]
    early = syncing.pusher().push(most=100)
    assert (early.sent, early.lost) == (0, 0)
    syncing.clock.advance(LEASE + timedelta(seconds=1))
    late = syncing.pusher().push(most=100)

    assert (late.sent, late.lost) == (1, 1)
    assert stripe_sandbox.total(made, METER) == 7
    outcomes = [row.outcome for row in syncing.read("SELECT outcome FROM stripe_attempt ORDER BY attempt")]
    assert outcomes == ["unknown", "duplicate" if counted else "taken"]


@pytest.mark.parametrize(("point", "left"), [("before claim", "pending"), ("after note", "sent")])
def test_given_a_pusher_killed_between_its_steps_when_pushed_again_then_nobody_waits(
    syncing: Syncing, stripe_sandbox: SandboxControl, point: str, left: str
) -> None:
    """Nothing is in flight: the next push need not wait for a lease."""
    made = syncing.planned()
    _killed(syncing, point)
    assert syncing.states() == {left: 1}

    again = syncing.pusher().push(most=100)

    assert (again.sent, again.lost) == (int(left == "pending"), 0)
    assert stripe_sandbox.total(made, METER) == 7
    assert [row.outcome for row in syncing.read("SELECT outcome FROM stripe_attempt")] == ["taken"]


def test_given_an_answer_that_cannot_be_noted_then_the_increment_is_sent_again_after_its_lease(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    """PostgreSQL goes away between the call and the outcome: the next push learns what happened."""
    made = syncing.planned()

    class Cut(Gateway):
        """Loses the database right after the call."""

        def send(self, payload: Payload, *, idempotency_key: str) -> Reply:
            reply = super().send(payload, idempotency_key=idempotency_key)
            with syncing.engine.begin() as connection:
                connection.execute(sqlalchemy.text("ALTER TABLE stripe_increment RENAME TO away"))
            return reply

    with pytest.raises(sqlalchemy.exc.ProgrammingError):
        syncing.pusher(lambda: Cut(syncing.settings)).push(most=100)
    with syncing.engine.begin() as connection:
        connection.execute(sqlalchemy.text("ALTER TABLE away RENAME TO stripe_increment"))
    syncing.clock.advance(LEASE + timedelta(seconds=1))

    assert syncing.pusher().push(most=100).sent == 1
    assert stripe_sandbox.total(made, METER) == 7


def test_given_a_process_paused_for_longer_than_its_lease_then_it_does_not_send(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    """A call that comes a day late could be counted a second time."""
    made = syncing.planned()
    clock = syncing.clock

    class Pausing(TestClock):
        """Time that passes between the claim and the call."""

        def monotonic(self) -> float:
            clock.advance(timedelta(seconds=50))
            return clock.monotonic()

        def now(self) -> datetime:
            return clock.now()

    report = _by(Pausing(), syncing).push(most=100, seconds=10_000)
    assert report.sent == 1
    syncing.use("acme", 2)
    syncing.planner().plan()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("billing.sinks.sync.calling.pusher.LEASE", timedelta(seconds=40))
        report = _by(Pausing(), syncing).push(most=100, seconds=10_000)

    assert (report.sent, report.pending) == (0, 1)
    assert stripe_sandbox.total(made, METER) == 7


def test_given_a_machine_that_slept_past_its_lease_then_it_does_not_send(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    """The monotonic clock of a suspended machine stands still: the other clock tells."""
    made = syncing.planned()

    class Sleeping(TestClock):
        """Its third look at the time, which follows the claim, is a day later."""

        looks = 0

        def now(self) -> datetime:
            self.looks += 1
            return NOON + timedelta(days=self.looks > 2)

    report = _by(Sleeping(), syncing).push(most=100)

    assert (report.sent, report.pending) == (0, 1)
    assert stripe_sandbox.total(made, METER) == 0
    assert syncing.pusher().push(most=100).sent == 1


def test_given_an_interrupted_push_then_no_further_call_begins(
    syncing: Syncing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C waits for the calls that are being made, not for all that was planned."""
    for number in range(12):
        syncing.planned(f"client-{number:02}", 5)
    stopped = threading.Event()
    calls: list[str] = []
    stop = Course.stop

    def noted(course: Course, reason: str) -> None:
        stop(course, reason)
        stopped.set()

    monkeypatch.setattr(Course, "stop", noted)

    class Interrupted(Gateway):
        """Its first call is interrupted by Ctrl-C; no call ends before the push was told to stop."""

        def send(self, payload: Payload, *, idempotency_key: str) -> Reply:
            calls.append(payload.identifier)
            if len(calls) == 1:
                # A real signal: it wakes the main thread, which waits for the pool.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            stopped.wait(5)
            return super().send(payload, idempotency_key=idempotency_key)

    with pytest.raises(KeyboardInterrupt):
        syncing.pusher(lambda: Interrupted(syncing.settings)).push(most=100)

    assert 1 <= len(calls) <= THREADS
    assert syncing.states() == {"sent": len(calls), "pending": 12 - len(calls)}


def test_given_a_doubt_at_other_books_when_the_key_changes_then_it_waits_for_its_own(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    """L8: what a test key may have sent is not sent as live; what was never attempted is, and confirmed there only."""
    made = syncing.planned("acme", 7)
    stripe_sandbox.fault("commit_then_close", path="/v1/billing/meter_events")
    assert syncing.pusher(books=KeyKind.TEST).push(most=100).ambiguous == 1
    syncing.planned("berry", 9)

    live = syncing.pusher(books=KeyKind.LIVE).push(most=100)
    assert (live.sent, live.ambiguous) == (1, 0)
    assert syncing.confirmer(KeyKind.LIVE).confirm().checked == 1
    sent_to = syncing.read("SELECT client_id, state, sent_to FROM stripe_increment ORDER BY 1")
    assert [tuple(row) for row in sent_to] == [("acme", "ambiguous", "test"), ("berry", "confirmed", "live")]

    assert syncing.pusher(books=KeyKind.TEST).push(most=100).sent == 1
    assert stripe_sandbox.total(made, METER) == 7


def test_given_calls_that_were_not_executed_when_the_key_changes_then_the_new_one_sends_them(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    made = syncing.planned("acme", 7)
    stripe_sandbox.fault("rate_limit", path="/v1/billing/meter_events", count=4)
    assert syncing.pusher(books=KeyKind.TEST).push(most=100).pending == 1

    assert syncing.pusher(books=KeyKind.LIVE).push(most=100).sent == 1
    assert stripe_sandbox.total(made, METER) == 7


def test_given_an_answer_that_comes_after_another_gave_the_increment_up_then_its_doubt_is_over(
    syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    """A pusher that slept after its call knows what came of it."""
    made = syncing.planned()

    class Slow(Gateway):
        """Answers a day later, when another push has been."""

        def send(self, payload: Payload, *, idempotency_key: str) -> Reply:
            reply = super().send(payload, idempotency_key=idempotency_key)
            syncing.clock.advance(timedelta(days=1))
            other = syncing.pusher().push(most=100)
            assert (other.lost, other.sent) == (1, 0)
            return reply

    assert syncing.pusher(lambda: Slow(syncing.settings)).push(most=100).sent == 1

    assert syncing.states() == {"sent": 1}
    assert stripe_sandbox.total(made, METER) == 7


def test_given_a_pusher_that_died_when_nobody_listens_then_the_push_says_both(syncing: Syncing) -> None:
    """What a push took for lost is not forgotten with the push that could not go on."""
    syncing.planned()
    with syncing.engine.begin() as connection:
        connection.execute(
            sqlalchemy.text("UPDATE stripe_increment SET state = 'sending', attempts = 1, lease_until = :at"),
            {"at": NOON - timedelta(seconds=1)},
        )
    syncing.planned("berry", 9)
    nowhere = Settings(database_url=syncing.settings.database_url, stripe_sandbox_url="http://127.0.0.1:1")

    report = syncing.pusher(lambda: Gateway(nowhere)).push(most=100)

    assert report.lost == 1
    assert report.stopped is not None
    assert report.stopped.startswith("Stripe: 'http://127.0.0.1:1': does not answer")


def _killed(syncing: Syncing, point: str) -> None:
    """Have a pusher die at a point."""
    given = {
        "database_url": syncing.settings.database_url,
        "stripe_sandbox_url": syncing.settings.stripe_sandbox_url,
    }
    command = [sys.executable, "-m", "tests.integration.killed_pusher", json.dumps(given), point, NOON.isoformat()]
    died = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    wait_for_the_dead(syncing.settings.database_url)


def _by(clock: TestClock, syncing: Syncing) -> Pusher:
    """Return a pusher with a clock of its own."""
    return dataclasses.replace(syncing, clock=clock).pusher()
