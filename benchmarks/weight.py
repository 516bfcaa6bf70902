"""What a million tasks weigh: bytes in Redis, in RabbitMQ and in PostgreSQL, each by the server's own count.

An event of one line, of clients with one grant each, as a `BillableTask` of this fleet makes it. None has a mark: they
are what capacity is planned with.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg
import redis

from benchmarks.bucket_work import buckets_on, commands_of, send, some_work, used_memory
from benchmarks.rows import Row
from benchmarks.sample_events import sample_events
from benchmarks.servers import Servers
from billing.connections import postgres
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.events.links import Outgoing
from billing.events.publisher import Publisher
from billing.events.usage_event import UsageEvent
from billing.fulfillment.delivery import Delivered
from billing.fulfillment.postgres_log import PostgresUsageLog
from billing.schema.migrate import migrate

EVENTS: Final = 50_000
CLIENTS: Final = 1_000
BATCH: Final = 500
#: How long RabbitMQ may take to have on its disk what it has confirmed.
_BOUND_SECONDS: Final = 30.0

_HISTORY: Final = """
    SELECT sum(pg_relation_size(relid))::bigint, sum(pg_total_relation_size(relid) - pg_relation_size(relid))::bigint
    FROM pg_partition_tree('usage_history') WHERE isleaf
"""
_ROLLUP: Final = "SELECT pg_total_relation_size('usage_rollup')::float8 / count(*) FROM usage_rollup"


def rows(servers: Servers) -> list[Row]:
    """Measure all three."""
    return [*redis_rows(servers), *rabbitmq_rows(servers), *postgres_rows(servers)]


def redis_rows(servers: Servers) -> list[Row]:
    """Weigh what a settled run leaves: its id for the retention, its event until the broker has it."""
    with redis.Redis.from_url(servers.endpoints.redis_url, protocol=2) as client:
        buckets_on(client, grants=1)
        reserves, settles = commands_of(some_work(EVENTS))
        before = used_memory(client)
        send(client, reserves)
        send(client, settles)
        both = used_memory(client) - before
        # Not DEL, after which the server frees the memory when it finds time.
        for key in client.scan_iter("*:outbox", count=1_000):
            client.xtrim(key, maxlen=0, approximate=False)
        settled = used_memory(client) - before
    return [
        _row("Redis, a settled run, for billing_settled_retention_seconds", settled, "used_memory"),
        _row("Redis, an event in the outbox, until it is confirmed", both - settled, "used_memory"),
    ]


def rabbitmq_rows(servers: Servers) -> list[Row]:
    """Weigh what waits in a usage queue while no consumer is there."""
    if servers.rabbitmq is None:
        return []
    directory = servers.rabbitmq.directory
    with servers.virtual_host("weight") as url:
        publisher = Publisher(Settings(broker_url=url, usage_queues=1))
        batches = _batches()
        publisher.publish_batch(0, _messages(next(batches)))
        before = _disk(directory)
        for batch in batches:
            publisher.publish_batch(0, _messages(batch))
        after = _settled_disk(directory)
        publisher.close()
    return [_row("RabbitMQ, an event in a quorum queue, per node", after - before, "its directory on the disk")]


def postgres_rows(servers: Servers) -> list[Row]:
    """Weigh what an event becomes: a row with its indexes, sums that other events share, and the write-ahead log."""
    settings = Settings(database_url=servers.fresh_database("weight"))
    migrate(settings)
    with psycopg.connect(settings.database_url, autocommit=True) as session:
        ids = [f"client-{number}" for number in range(CLIENTS)]
        shards = [shard_of(client_id, settings.shards) for client_id in ids]
        session.execute(
            "INSERT INTO client (client_id, shard) SELECT * FROM unnest(%s::text[], %s::int[])", [ids, shards]
        )
        log = PostgresUsageLog(lambda: postgres.connect(settings), shards=settings.shards)
        begun = _one(session, "SELECT pg_current_wal_lsn()::text")
        for batch in _batches():
            log.write([Delivered(body=body, queue="q", decoded=event) for body, event in batch])
        log.close()
        written = _one(session, f"SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '{begun}')::bigint")
        found = session.execute(_HISTORY).fetchone()
        rollup = _one(session, _ROLLUP)
    table, indexes = found if found is not None else (0, 0)
    servers.drop_database("weight")
    return [
        _row("PostgreSQL, a row of usage_history, without indexes", table, "pg_relation_size"),
        _row("PostgreSQL, its indexes", indexes, "pg_total_relation_size"),
        _row("PostgreSQL, write-ahead log of it all", written, "pg_current_wal_lsn"),
        Row(
            name="PostgreSQL, client, SKU and hour of usage_rollup",
            value=rollup,
            unit="B",
            against="",
            mark=None,
            met=None,
        ),
    ]


def _row(name: str, count: int, against: str) -> Row:
    told = f"{against}, {EVENTS:,} events"
    return Row(name=name, value=count / EVENTS, unit="B", against=told, mark=None, met=None)


def _batches() -> Iterator[list[tuple[bytes, UsageEvent]]]:
    """Yield events as workers publish them, in batches: their bytes, and what they say."""
    seeded = random.Random(1)
    ids = itertools.cycle(f"client-{number}" for number in range(CLIENTS))
    for _ in range(EVENTS // BATCH):
        yield [(msgspec.json.encode(event), event) for event in sample_events(seeded, itertools.islice(ids, BATCH))]


def _messages(batch: Sequence[tuple[bytes, UsageEvent]]) -> list[Outgoing]:
    return [Outgoing(body=body, shard=0, entry_id=f"{event.occurred_at}-0") for body, event in batch]


def _disk(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


def _settled_disk(directory: Path) -> int:
    """Return what a directory takes once it grows no more."""
    deadline = time.monotonic() + _BOUND_SECONDS
    seen = _disk(directory)
    while time.monotonic() < deadline:
        time.sleep(1.0)
        now = _disk(directory)
        if now == seen:
            break
        seen = now
    return seen


def _one(session: psycopg.Connection[tuple[Any, ...]], query: str) -> Any:
    found = session.execute(query.encode()).fetchone()
    if found is None:
        raise RuntimeError(query)
    return found[0]
