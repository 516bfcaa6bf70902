"""A link that is moved while its client's usage is planned, or sent: what the old customer did not get goes along."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta

import pytest
import sqlalchemy

from billing.core.settings import Settings
from billing.sinks.sink import Answer, Reply
from billing.sinks.stripe import links
from billing.sinks.sync import protocol
from billing.sinks.sync.increment import Attempt, Increment, attempt_of
from billing.sinks.sync.log import Having
from billing.sinks.sync.planning import stamping
from billing.sinks.sync.planning.drafts import Meters, drafted
from billing.sinks.sync.planning.periods import calendar
from billing.sinks.sync.planning.places import Places
from billing.sinks.sync.postgres.log import PostgresLog
from tests.integration.syncing import METER, Syncing, TestClock

pytestmark = pytest.mark.integration


@pytest.fixture
def syncing(engine: sqlalchemy.Engine, database: Settings) -> Syncing:
    found = Syncing(engine=engine, settings=database, clock=TestClock())
    found.add("acme", "cus_old")
    found.use("acme", 7, hour=found.clock.now() - timedelta(hours=2))
    return found


def move(syncing: Syncing) -> int | None:
    with syncing.engine.begin() as connection:
        return links.move(connection, "acme", "cus_new", reason="deleted", now=syncing.clock.now())


def customers(syncing: Syncing) -> list[tuple[str, str]]:
    return [tuple(row) for row in syncing.read("SELECT customer_id, state FROM stripe_increment")]


def test_a_plan_that_has_read_the_old_customer_is_waited_for(syncing: Syncing) -> None:
    """Given a slice that is being planned, when the link is moved, then nothing is left for the old customer (L8)."""
    now = syncing.clock.now()
    log = PostgresLog(syncing.engine)
    with ThreadPoolExecutor(1) as pool:
        with log.planning() as slice_:
            assert slice_ is not None
            rows = slice_.unplanned(after="", rows=10, having=Having.NOTHING, now=now)
            places = Places(calendar([now], grace=timedelta(hours=1)), late_usage="carry_forward", now=now)
            made = drafted(rows, meters=Meters(), default=METER, placing=lambda *key: places.of(key[2]))
            moving = pool.submit(move, syncing)
            waits = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            while not moving.done() and not syncing.read(waits):
                wait([moving], timeout=0.01)
            slice_.write(stamping.stamped(slice_, made.drafts, now)[0])
        assert moving.result(60) == 1

    syncing.planner().plan()

    assert customers(syncing) == [("cus_new", "pending")]
    syncing.laws()


def test_what_was_on_its_way_and_was_not_executed_goes_to_the_new_customer(syncing: Syncing) -> None:
    syncing.planner().plan()
    log = PostgresLog(syncing.engine)
    ((number,),) = syncing.read("SELECT increment_id FROM stripe_increment")
    claim = log.claim(number, lambda one: protocol.claimed(one, books="stand-in", now=syncing.clock.now()))
    assert claim is not None
    assert move(syncing) == 0
    reply = Reply(answer=Answer.BUSY)

    def decide(one: Increment) -> tuple[Increment | None, Attempt | None]:
        return protocol.answered(one, 1, reply, doubted=False), attempt_of(claim, reply, syncing.clock.now())

    noted = log.note(number, decide)
    assert noted is not None
    assert protocol.may_send(noted, books="stand-in", now=syncing.clock.now()) is False

    syncing.planner().plan()

    assert customers(syncing) == [("cus_new", "pending")]
