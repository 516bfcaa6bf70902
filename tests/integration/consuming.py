"""What the tests of the consumer share: a migrated database with clients, a consumer in a thread, and the laws."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from billing.catalog.clients import add_client
from billing.connections import postgres
from billing.core.settings import Settings
from billing.core.shards import queue_of, shard_of
from billing.events.publisher import Publisher
from billing.fulfillment.consumer import Consumer
from billing.fulfillment.log import UsageLog
from billing.fulfillment.postgres_log import PostgresUsageLog
from billing.schema.migrate import migrate
from tests.amqp import event_body, settings_for
from tests.waiting import LIMIT_SECONDS, wait_until

#: Of both usage queues.
CLIENTS = ("ada", "bob", "dan")


def prepare(broker_url: str, database_url: str, **changes: Any) -> Settings:
    """Return settings of a migrated database with clients, and batches that fill quickly."""
    given = {"batch_events": 20, "batch_age_seconds": 0.1} | changes
    settings = settings_for(broker_url, database_url=database_url, **given)
    migrate(settings)
    engine = postgres.engine(settings)
    with engine.begin() as connection:
        for client_id in CLIENTS:
            add_client(connection, client_id, settings.shards)
    engine.dispose()
    return settings


def usage_log(settings: Settings) -> UsageLog:
    """Return a usage log of the settings' database."""
    return PostgresUsageLog(lambda: postgres.connect(settings), shards=settings.shards)


def send(settings: Settings, bodies: Sequence[tuple[str, bytes]]) -> None:
    """Publish (client, body) pairs, each to its client's queue."""
    publisher = Publisher(settings)
    for client_id, body in bodies:
        shard = shard_of(client_id, settings.shards)
        publisher.publish(queue_of(shard, settings.usage_queues), body, shard=shard, entry_id=None)
    publisher.close()


def events(count: int, *, first: int = 0) -> list[tuple[str, bytes]]:
    """Return (client, body) pairs of `count` events for each client, of 3 credits each."""
    numbers = range(first, first + count)
    return [(client, event_body(client, str(number))) for number in numbers for client in CLIENTS]


@contextmanager
def running(consumer: Consumer) -> Iterator[threading.Thread]:
    """Run a consumer in a thread, and stop it at the end."""
    thread = threading.Thread(target=consumer.run, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        consumer.stop()
        thread.join(120)
        assert not thread.is_alive()


def query(settings: Settings, statement: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    with postgres.connect(settings, autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


def execute(settings: Settings, statement: str) -> None:
    """Run a statement."""
    with postgres.connect(settings, autocommit=True) as connection:
        connection.execute(statement.encode())


def rows(settings: Settings) -> int:
    """Return how many rows the history has."""
    return int(query(settings, "SELECT count(*) FROM usage_history")[0][0])


def letters(settings: Settings) -> list[tuple[bytes, str]]:
    """Return the dead letters as (body, reason)."""
    return [
        (bytes(body), reason) for body, reason in query(settings, "SELECT body, reason FROM dead_letter ORDER BY 1")
    ]


def check_laws(settings: Settings, expected: list[tuple[str, bytes]]) -> None:
    """L3: rows are the events, each once; rollups and grant sums are those of the rows, to the unit."""
    wanted = sorted((json.loads(body)["run_id"], client) for client, body in expected)
    found = query(settings, "SELECT run_id::text, client_id FROM usage_history WHERE line = 0")
    assert sorted(found) == wanted
    of_rows = query(settings, "SELECT client_id, sum(credits), sum(quantity) FROM usage_history GROUP BY 1 ORDER BY 1")
    rolled = query(settings, "SELECT client_id, sum(credits), sum(quantity) FROM usage_rollup GROUP BY 1 ORDER BY 1")
    spent = query(settings, "SELECT client_id, sum(credits) FROM grant_spent GROUP BY 1 ORDER BY 1")
    assert rolled == of_rows
    assert spent == [(client, credits) for client, credits, _ in of_rows]


def until_rows(settings: Settings, count: int, *, timeout_seconds: float = LIMIT_SECONDS) -> None:
    """Wait until the history has so many rows."""
    wait_until(lambda: rows(settings) == count, f"{count} rows", timeout_seconds=timeout_seconds)
