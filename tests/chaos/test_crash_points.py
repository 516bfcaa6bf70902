"""Killed by SIGKILL between any two steps, started again: every run is charged once, to the unit (L2, L3, L6).

Each point of `tests.chaos.crash_points` is a real process, or a real server, killed at that very point. The suite has
time for half of them, `make crashes` for all.
"""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import psycopg
import pytest

from billing import admin
from billing.core.settings import Settings
from billing.embedded.stack import Stack
from billing.schema.migrate import migrate
from tests.chaos.crash_points import IN_SUITE, ITSELF, POINTS, SERVERS
from tests.chaos.crashing import Doomed, Point, start
from tests.chaos.processes import SKU
from tests.chaos.restarts import kill_and_restart
from tests.chaos.stream import BATCH, CLIENTS, GRANTED, PRICE, Stream
from tests.integration.recovering import Business

pytestmark = [pytest.mark.integration, pytest.mark.slow]

#: Whether all points have their turn (`make crashes`), or those that the suite has time for.
_EVERY: Final = os.environ.get("CRASHES") == "all"
#: The processes whose work begins where a consumer's has ended.
_AFTER_THE_LOG = ("postings", "alerts")


def chosen(points: Sequence[Point]) -> list[Point]:
    """Return those of the points that have their turn."""
    return [point for point in points if _EVERY or point in IN_SUITE]


@pytest.fixture(scope="module")
def database_template(stack: Stack) -> str:
    """Make a migrated database with the prices; each point has a clone of it."""
    name = "test_crash_points"
    with psycopg.connect(stack.postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    settings = Settings(database_url=stack.postgres.url_of(name), shards=1, usage_queues=1)
    migrate(settings)
    admin.set_price(settings, SKU, PRICE, "unit")
    admin.close(settings)
    return name


@pytest.fixture
def business(database_url: str, redis_url: str, broker_url: str) -> Iterator[Business]:
    """Open a business of one shard and one queue, so that what a process meets is known to the message."""
    settings = Settings(
        database_url=database_url,
        database_timeout_seconds=60.0,
        redis_timeout_seconds=60.0,
        redis_url=redis_url,
        broker_url=broker_url,
        shards=1,
        usage_queues=1,
        publish_timeout_seconds=30.0,
        relay_after_seconds=0.0,
        relay_batch=BATCH,
        batch_events=BATCH,
        batch_age_seconds=0.2,
    )
    made = Business(settings)
    for client_id in CLIENTS:
        made.client(client_id, GRANTED)
    yield made
    made.stop()


@pytest.fixture
def stream(business: Business, point: Point) -> Stream:
    """Prepare what the process of a point is to work on."""
    stream = Stream(business)
    if point.process == "publisher":
        stream.expect_blocks()
        return stream
    stream.settle_all()
    if point.process == "relay":
        return stream
    stream.send_all()
    if point.process in _AFTER_THE_LOG:
        stream.consume()
    return stream


@contextmanager
def doomed(business: Business, point: Point, *, spared: bool = False) -> Iterator[Doomed]:
    """Start the process of a point; none is left behind. Its batches are full ones, however slowly messages come."""
    settings = dataclasses.replace(business.settings, batch_age_seconds=60.0)
    process = start(settings, point.process, None if spared else point)
    try:
        yield process
    finally:
        process.kill()


@pytest.mark.parametrize("point", chosen(ITSELF), ids=str)
def test_given_a_process_that_dies_at_a_point_then_nothing_is_lost_and_nothing_twice(
    business: Business, stream: Stream, point: Point
) -> None:
    """L3: what was under way is done again, by whoever is started next, and counted once."""
    with doomed(business, point) as process:
        assert process.exit_code() == -signal.SIGKILL
    if point.process == "publisher":
        with doomed(business, point, spared=True) as process:
            assert process.exit_code() == 0
    stream.bring_home()
    stream.check()


@pytest.mark.parametrize("point", chosen(SERVERS), ids=str)
def test_given_a_server_that_dies_at_a_point_then_nothing_is_lost_and_nothing_twice(
    business: Business, stream: Stream, stack: Stack, point: Point
) -> None:
    """L3: RabbitMQ keeps what it has confirmed and not seen acked, PostgreSQL what it has committed."""
    with doomed(business, point) as process:
        backend = process.halted()
        if point.victim == "backend":
            os.kill(backend, signal.SIGKILL)
        else:
            if point.when == "halfway" and point.victim == "postgres":
                stream.wait_for_second_batch()
            kill_and_restart(stack, point.victim)
        process.go_on()
        stream.bring_home()
    stream.check()


def test_given_the_points_then_each_is_one_of_its_own() -> None:
    """At least twenty, between every two steps; no two are the same."""
    places = {(point.process, point.when, point.where, point.nth, point.victim) for point in POINTS}
    assert len(places) == len({str(point) for point in POINTS}) == len(POINTS) >= 50
    assert len(IN_SUITE) >= 25
