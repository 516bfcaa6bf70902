"""A reading of the whole fleet says what is there: each number against a fleet in a known state."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import sqlalchemy
from msgspec import structs

from billing import admin
from billing.alerts.recording import record
from billing.core.settings import Settings
from billing.credits.values import ReserveOutcome
from billing.observability.liveness import seen
from billing.observability.metrics.catalogue import CHECKED
from billing.observability.overview.log_side import LogSide
from billing.observability.overview.reading import FleetReader, read_fleet
from billing.schema.stripe import STATES
from billing.sinks.stripe.links import link
from billing.sinks.stripe.sandbox.control import SandboxControl
from billing.task.runtime import Runtime
from tests.integration.alerting import Scene
from tests.integration.lettering import refuse
from tests.integration.reconciling import books_on
from tests.integration.recovering import QUEUES, Business, a_hold, clients_by_queue
from tests.integration.starting import delivery, parked
from tests.integration.syncing import CALENDAR, NOON, at_noon
from tests.integration.watching_fleet import declare, read_once, read_until

pytestmark = pytest.mark.integration


def test_given_a_quiet_fleet_then_every_part_of_a_reading_is_there_and_zero(business: Business) -> None:
    declare(business)
    state = read_once(business.runtime)
    assert state.servers == {"Redis": True, "PostgreSQL": True, "broker": True}
    assert state.outbox is not None
    assert (state.outbox.events, state.outbox.oldest_seconds) == (0, 0.0)
    assert state.holds is not None
    assert (state.holds.count, state.holds.credits, state.holds.overdue_seconds, state.holds.whole) == (0, 0, 0.0, True)
    assert state.queues is not None
    assert [(queue.number, queue.events, queue.consumers) for queue in state.queues] == [
        (number, 0, 0) for number in range(QUEUES)
    ]
    assert (state.recovering_shards, state.dead_letters, state.parked_tasks, state.deliveries) == (0, 0, 0, 0)
    assert (state.unplanned_credits, state.unplanned_oldest_at, state.parked_oldest_at) == (0, None, None)
    assert (state.last_planned_at, state.last_sent_at, state.last_confirmed_at, state.log_last_at) == (None,) * 4
    assert state.months_ahead == 12
    assert state.seen == ()
    assert state.increments is not None
    assert [(one.state, one.count, one.units) for one in state.increments] == [(name, 0, 0) for name in STATES]
    assert state.laws is not None
    assert [law.law for law in state.laws] == list(CHECKED)
    assert {law.checked_at for law in state.laws} == {None}


def test_given_holds_then_a_reading_has_their_count_their_credits_and_how_long_the_oldest_is_overdue(
    business: Business,
) -> None:
    """Overdraft room that a hold was lent counts as any other of its credits."""
    buckets = business.runtime.buckets
    for client_id in clients_by_queue():
        business.client(client_id, 20, 30)
        business.hold(client_id, 35)
    admin.set_overdraft(business.settings, "acme", 50)
    late = structs.replace(a_hold("acme", 40, "late"), lease_seconds=0.001)
    assert buckets.reserve(late).outcome is ReserveOutcome.HELD
    state = read_until(
        business.runtime,
        lambda state: state.holds is not None and state.holds.overdue_seconds > 0 and state.holds.credits,
        "one is overdue",
    )
    assert state.holds is not None
    assert (state.holds.count, state.holds.credits, state.holds.whole) == (5, 4 * 35 + 40, True)
    first = state.holds.overdue_seconds
    later = read_until(
        business.runtime, lambda state: state.holds is not None and state.holds.overdue_seconds > first, "it grows"
    )
    assert later.holds is not None
    buckets.release("acme", late.run_id, "token")
    after = read_once(business.runtime)
    assert after.holds is not None
    assert (after.holds.count, after.holds.credits, after.holds.overdue_seconds) == (4, 4 * 35, 0.0)


def test_given_settled_runs_whose_events_nobody_confirmed_then_a_reading_has_their_number_and_the_age_of_the_oldest(
    business: Business,
) -> None:
    clients = [business.client(client_id, 1_000) for client_id in clients_by_queue()]
    for number in range(3):
        for client_id in clients:
            business.settle(client_id, 5, f"task-{number}", publish=False)
    state = read_once(business.runtime)
    assert state.outbox is not None
    assert state.outbox.events == 12
    first = state.outbox.oldest_seconds
    assert 0 < first < 600
    read_until(business.runtime, lambda now: now.outbox is not None and now.outbox.oldest_seconds > first, "it ages")


def test_given_a_shard_that_lost_its_trust_then_it_recovers_and_one_without_clients_does_not_count(
    business: Business,
) -> None:
    assert read_once(business.runtime).recovering_shards == 0
    business.close_shard("acme")
    business.close_shard("nobody")
    assert read_once(business.runtime).recovering_shards == 1
    business.lose()
    other = business.client(clients_by_queue()[1])
    business.close_shard(other)
    assert read_once(business.runtime).recovering_shards == 2


def test_given_events_in_the_queues_and_then_a_consumer_then_a_reading_follows_them_into_the_log(
    business: Business, engine: sqlalchemy.Engine
) -> None:
    """Unplanned is what linked clients used; what a client without a customer used is the doctor's to say."""
    declare(business)
    clients = [business.client(client_id, 1_000) for client_id in clients_by_queue()]
    for number, client_id in enumerate(clients):
        for task in range(number):
            business.settle(client_id, 5, f"task-{task}")
    state = read_until(
        business.runtime,
        lambda state: state.queues and sum(queue.events for queue in state.queues) == 6,
        "the events are in the queues",
    )
    assert state.queues is not None
    assert [(queue.number, queue.name, queue.events, queue.consumers) for queue in state.queues] == [
        (number, f"billing.usage.{number}", number, 0) for number in range(QUEUES)
    ]
    with engine.begin() as connection:
        link(connection, clients[2], "cus_2")
    with business.consuming(0, 2, 3):
        served = read_until(
            business.runtime,
            lambda state: (
                state.unplanned_credits == 10
                and state.log_last_at is not None
                and state.queues
                and [queue.consumers for queue in state.queues] == [1, 0, 1, 1]
                and [queue.events for queue in state.queues] == [0, 1, 0, 0]
            ),
            "three queues are consumed, and what the linked client used can be planned",
        )
    assert served.log_last_at is not None
    assert served.unplanned_oldest_at is not None
    assert timedelta(0) <= served.taken_at - served.log_last_at < timedelta(minutes=10)
    assert served.unplanned_oldest_at.minute == 0


def test_given_dead_letters_parked_tasks_and_whom_was_seen_then_a_reading_has_them(
    business: Business, session: psycopg.Connection[object]
) -> None:
    letters = refuse(business.settings, b"one", b"two", b"three", b"four")
    admin.discard_dead_letters(business.settings, letters[:1], reason="a test's")
    for number in range(4):
        parked(business, delivery("acme", f"task-{number}"))
    session.execute("UPDATE parked_task SET parked_at = now() - interval '90 s' WHERE task_id = 'task-2'")
    session.execute("UPDATE parked_task SET state = 'started', ended_at = now() WHERE task_id = 'task-0'")
    session.execute(
        "INSERT INTO last_seen VALUES ('beat', '', now() - interval '1 h', now() - interval '7 s', '{}'),"
        """ ('consumer', 'one@here', now(), now() - interval '3 s', '{"in_hand": 4}')"""
    )
    state = read_once(business.runtime)
    assert (state.dead_letters, state.parked_tasks) == (3, 3)
    assert state.parked_oldest_at is not None
    assert 90 <= (state.taken_at - state.parked_oldest_at).total_seconds() < 600
    assert state.seen is not None
    assert [(one.process, one.name, dict(one.details)) for one in state.seen] == [
        ("beat", "", {}),
        ("consumer", "one@here", {"in_hand": 4}),
    ]
    assert 7 <= (state.taken_at - state.seen[0].seen_at).total_seconds() < 600


def test_given_an_alert_that_waits_for_its_webhook_then_a_reading_counts_it(scene: Scene) -> None:
    scene.client("acme", url="http://127.0.0.1:1/")
    scene.client("silent")
    scene.alerted("acme", "silent")
    assert record(scene.runtime) == 0
    assert read_until(scene.runtime, lambda state: state.deliveries is not None, "it answers").deliveries == 1


def test_given_increments_of_several_states_then_a_reading_counts_them_and_says_when_anything_moved_last(
    engine: sqlalchemy.Engine, database: Settings, stripe_sandbox: SandboxControl, redis_url: str
) -> None:
    syncing = at_noon(engine, dataclasses.replace(database, redis_url=redis_url), stripe_sandbox)
    runtime = Runtime(lambda: syncing.settings, syncing.clock)
    for client_id, credits_ in (("acme", 7), ("berry", 5)):
        syncing.planned(client_id, credits_)
    syncing.pusher().push(most=1)
    syncing.use("acme", 11)
    syncing.add("unlinked")
    syncing.use("unlinked", 1_000)
    state = _read_sync(runtime)
    assert state["units"] == {"pending": 5, "sent": 7}
    assert (state["unplanned"], state["unplanned_oldest"]) == (11, NOON)
    assert state["planned_at"] == state["sent_at"] == NOON
    assert state["confirmed_at"] is None

    syncing.pusher().push(most=10)
    syncing.clock.advance(timedelta(minutes=30))
    stripe_sandbox.advance(1_800)
    syncing.confirmer().confirm()
    syncing.planner(rules=CALENDAR).plan()
    state = _read_sync(runtime)
    assert state["units"] == {"pending": 11, "confirmed": 12}
    assert (state["unplanned"], state["unplanned_oldest"]) == (0, None)
    assert state["confirmed_at"] == syncing.clock.now()
    runtime.close()


def _read_sync(runtime: Runtime) -> dict[str, object]:
    """Return what a reading says of the report to Stripe; the clock is the test's, so that nothing waits on it."""
    side = LogSide(runtime.settings, runtime.clock)
    found = side.read_sync()
    side.close()
    return {
        "units": {one.state: one.units for one in found.increments if one.count},
        "unplanned": found.unplanned_credits,
        "unplanned_oldest": found.unplanned_oldest_at,
        "planned_at": found.last_planned_at,
        "sent_at": found.last_sent_at,
        "confirmed_at": found.last_confirmed_at,
    }


def test_given_a_reconciliation_that_found_something_then_its_law_has_it_until_a_later_one_finds_nothing(
    database: Settings, redis_url: str, stripe_sandbox: SandboxControl
) -> None:
    given = {"stripe_sandbox_url": stripe_sandbox.url, "stripe_periods": "calendar"}
    with books_on(database, redis_url, **given) as books:
        books.client("acme", 100)
        books.use("acme", 10)
        books.spoil_grants("acme", "g:1", 5)
        books.reconcile(stripe=True)
        laws = {law.law: law for law in read_fleet(books.runtime).laws or ()}
        broken = next(law for law in laws.values() if law.violations)
        assert broken.law in {"L2 bucket", "L2 grants"}
        assert "acme" in broken.found
        assert laws["L7 sums of the log"].violations == 0
        assert laws["L7 sums of the log"].checked_at is not None
        assert laws["L1 ceiling"].checked_at is None

        books.spoil_grants("acme", "g:1", -5)
        books.reconcile(stripe=True)
        later = {law.law: law for law in read_fleet(books.runtime).laws or ()}
        assert later[broken.law].violations == 0
        assert later[broken.law].checked_at > broken.checked_at  # type: ignore[operator]  # both were checked


def test_given_a_process_that_is_seen_then_the_next_reading_says_so_though_the_doctor_rests(
    database: Settings, redis_url: str
) -> None:
    """Given beat that was never seen, when it is, then no reading says that it was not while the doctor rests."""
    with books_on(database, redis_url) as books:
        reader = FleetReader(books.runtime)

        def told() -> list[str]:
            return [one.seen for one in reader.read(patience_seconds=30).findings if one.part == "liveness"]

        assert "beat was never seen" in told()
        with books.runtime.engine.begin() as connection:
            seen.note(connection, seen.BEAT, seen.BEAT)
        assert "beat was seen 0 s ago" in told()
        assert len(told()) == 2  # beat, and that there is no consumer: each once
        reader.close()


def test_given_a_reading_then_it_was_taken_now(business: Business) -> None:
    before = datetime.now(UTC)
    assert before <= read_fleet(business.runtime).taken_at <= datetime.now(UTC)
