"""Usage events with twins and poison, while consumers, RabbitMQ and PostgreSQL are killed: all adds up (L3, L7, L10).

`make deliveries` delivers 1,000,000 with forty restarts. The suite delivers 5,000 with three. What is where when the
kill comes is chance; what is killed when so many events are confirmed is the seed's choice.
"""

from __future__ import annotations

import os
import random
import resource
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import amqp
import kombu
import psutil
import psycopg
import pytest

from billing.catalog.clients import add_client
from billing.connections import postgres
from billing.core.clock import to_milliseconds
from billing.core.settings import Settings
from billing.core.shards import queue_of, shard_of
from billing.embedded.stack import Stack
from billing.events.links import Outgoing
from billing.events.marker import encode_marker
from billing.events.publisher import PartlyPublished, Publisher
from billing.schema.migrate import migrate
from tests.amqp import MovedClock, waiting
from tests.chaos.restarts import CONSUMERS, QUEUES, VICTIMS, Restarts
from tests.chaos.usage import CLIENTS, POISON, STEP_MILLISECONDS, Books, Usage, portions
from tests.integration.consuming import query
from tests.waiting import wait_until

EVENTS: Final = int(os.environ.get("DELIVERIES_EVENTS") or 5_000)
SEED: Final = int(os.environ.get("DELIVERIES_SEED") or 20_261_122)
RESTARTS: Final = max(3, EVENTS // 25_000)
#: Events that are published together, and messages that wait in the queues before the feeder waits for the consumers.
PORTION: Final = min(2_000, EVENTS // 10)
BACKLOG_MAX: Final = 40_000
#: Bounds a failure; nothing is asserted of how long anything takes.
WAIT_SECONDS: Final = 300 + EVENTS / 200

#: What asking the broker raises while it is away.
_AWAY: Final = (OSError, amqp.exceptions.AMQPError, kombu.exceptions.OperationalError)

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(2 * WAIT_SECONDS)]


@pytest.fixture
def settings(database_url: str, broker_url: str) -> Settings:
    """Return the settings of a database with the clients, and production's batches."""
    made = Settings(database_url=database_url, broker_url=broker_url, usage_queues=QUEUES, publish_timeout_seconds=10.0)
    migrate(made)
    engine = postgres.engine(made)
    with engine.begin() as connection:
        for client_id in CLIENTS:
            add_client(connection, client_id, made.shards)
    engine.dispose()
    return made


class Feeder:
    """Publishes what the queues are to have; whatever is not confirmed, it publishes again."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._clock = settings, MovedClock()
        self._publisher = Publisher(settings, self._clock)
        #: Messages that were confirmed, and publishes that failed.
        self.confirmed = self.failures = 0

    def send(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish (client, body) pairs, each to its client's queue, until all are confirmed."""
        by_queue: dict[int, list[Outgoing]] = {}
        for client_id, body in messages:
            shard = shard_of(client_id, self._settings.shards)
            outgoing = Outgoing(body=body, shard=shard, entry_id=None)
            by_queue.setdefault(queue_of(shard, QUEUES), []).append(outgoing)
        for number, window in by_queue.items():
            self.send_to(number, window)

    def send_to(self, number: int, messages: list[Outgoing]) -> None:
        """Publish messages to one queue, until all are confirmed."""
        left = messages

        def sent() -> bool:
            nonlocal left
            try:
                self._publisher.publish_batch(number, left)
            except PartlyPublished as error:
                left = left[error.confirmed :]
                self.failures += 1
                self._clock.move(20)
                return False
            return True

        wait_until(sent, "the broker takes events", timeout_seconds=WAIT_SECONDS)
        self.confirmed += len(messages)

    def backlog(self) -> int:
        """Return how many messages are ready in the queues; 0 where the broker does not say."""
        try:
            return sum(waiting(self._settings, number) for number in range(QUEUES))
        except _AWAY:
            return 0

    def close(self) -> None:
        """Close the connection."""
        self._publisher.close()


def schedule(chance: random.Random) -> list[tuple[int, str]]:
    """Return who is killed when so many events are confirmed; the first three are of the three kinds."""
    kinds = ["rabbitmq", "postgres", chance.choice(list(CONSUMERS))]
    chance.shuffle(kinds)
    victims = kinds + [chance.choice(VICTIMS) for _ in range(RESTARTS - len(kinds))]
    return list(zip(sorted(chance.randrange(EVENTS // 20, EVENTS) for _ in victims), victims, strict=True))


def test_given_twins_poison_and_restarts_when_all_is_delivered_then_everything_adds_up(
    settings: Settings, stack: Stack
) -> None:
    """Rows are the events, one by one; sums, dead letters and postings are those of a model that knows no product."""
    chance = random.Random(SEED)
    # The last event is of now: the first months' rows lie before all months, in the partition `early`.
    usage = Usage(SEED, to_milliseconds(datetime.now(UTC)) - EVENTS * STEP_MILLISECONDS)
    books, started, due = Books(usage), time.monotonic(), schedule(chance)
    feeder = Feeder(settings)
    with Restarts(settings, stack) as restarts:
        for portion in portions(usage, books, chance, EVENTS, PORTION):
            while due and due[0][0] <= books.events:
                restarts.order(due.pop(0)[1])
            feeder.send(portion)
            wait_until(lambda: feeder.backlog() < BACKLOG_MAX, "the consumers keep up", timeout_seconds=WAIT_SECONDS)
        restarts.finish()
        fed = time.monotonic() - started
        wait_for_the_log(settings, feeder)
        seconds = time.monotonic() - started
        consumers = max(psutil.Process(pid).memory_info().rss for pid in restarts.pids)
    feeder.close()

    rows = check_rows(settings, usage)
    check_sums(settings, books)
    kinds = check_letters(settings, books)
    print(  # noqa: T201
        f"\nDELIVERIES_SEED={SEED}: {books.events} events, {books.twins} twins ({len(books.others)} of another "
        f"settlement), {len(books.poison)} poison of {kinds} kinds, {feeder.confirmed} confirmed, {feeder.failures} "
        f"failed publishes; {dict(restarts.killed)} killed; fed in {fed:.0f} s, in the log after {seconds:.0f} s "
        f"({feeder.confirmed / seconds:.0f} messages/s): {rows} rows, {len(books.credits)} rollups, "
        f"{len(books.spent)} grant sums, {len(books.poison)} dead letters and {len(books.returned)} postings add up. "
        f"Feeder {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB, consumers {consumers >> 20} MB"
    )
    assert sum(restarts.killed.values()) == RESTARTS
    assert {"rabbitmq", "postgres"} < set(restarts.killed)
    assert kinds >= 10


def wait_for_the_log(settings: Settings, feeder: Feeder) -> None:
    """Wait until a marker behind everything in each queue is committed."""
    tokens = [uuid.uuid4() for _ in range(QUEUES)]
    for number, token in enumerate(tokens):
        feeder.send_to(number, [Outgoing(body=encode_marker(token, number), shard=number, entry_id=None)])
    statement = "SELECT count(*) FROM recovery_marker"
    wait_until(
        lambda: query(settings, statement) == [(QUEUES,)], "the log has everything", timeout_seconds=WAIT_SECONDS
    )


def check_rows(settings: Settings, usage: Usage) -> int:
    """Compare the history, in the order of its ids, with the events, one by one; return how many rows there are."""
    expected = (row for number in range(EVENTS) for row in usage.rows(number))
    statement = """SELECT run_id::text, line, client_id, correlation_id, sku, quantity, credits FROM usage_history
                   ORDER BY run_id, line"""
    count = 0
    with psycopg.connect(settings.database_url) as connection, connection.cursor("rows") as cursor:
        cursor.itersize = 5_000
        for found in cursor.execute(statement):
            assert found == next(expected, None), f"row {count}"
            count += 1
    assert next(expected, None) is None, f"the history ends after {count} rows"
    return count


def check_sums(settings: Settings, books: Books) -> None:
    """Compare rollups, what grants have paid, and what is to be given back."""
    hour = "(extract(epoch FROM hour) * 1000)::bigint"
    rollups = {tuple(key): sums for *key, sums in _sums(settings, f"client_id, sku, {hour}", "usage_rollup")}
    assert rollups == {key: (credits, books.quantities[key]) for key, credits in books.credits.items()}
    assert _pairs(settings, "SELECT client_id, grant_id, credits FROM grant_spent") == books.spent
    given_back = _pairs(settings, "SELECT client_id, grant_id, -credits FROM posting")
    assert given_back == books.returned
    assert query(settings, "SELECT count(*) FROM settlement_returned") == [(len(books.others),)]
    assert query(settings, "SELECT count(*) FROM shard_rebuild") == [(0,)]


def check_letters(settings: Settings, books: Books) -> int:
    """Compare the dead letters, each with its reason; return of how many kinds they are."""
    letters = query(settings, "SELECT digest, reason, body FROM dead_letter")
    assert {bytes(digest) for digest, *_ in letters} == set(books.poison)
    for digest, reason, body in letters:
        kind = books.poison[bytes(digest)]
        assert POISON[kind] in reason, (kind, reason, bytes(body))
    return len(set(books.poison.values()))


def _sums(settings: Settings, key: str, table: str) -> Iterator[tuple[Any, ...]]:
    for *found, credits, quantity in query(settings, f"SELECT {key}, credits, quantity FROM {table}"):
        yield *found, (credits, quantity)


def _pairs(settings: Settings, statement: str) -> dict[tuple[str, int], int]:
    return {(client_id, grant): credits for client_id, grant, credits in query(settings, statement)}
