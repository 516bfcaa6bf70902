"""What the consumer holds of the machine's memory, over many events: a real fulfillment worker, a real queue.

Events are published a slice at a time, so that the broker never holds many; after each slice, when all of it is
committed and acked, the resident memory of the worker is read. It must stay below its mark, and must not grow: the
second row is what the last nine tenths of the events have added. `MEMORY_EVENTS` sets how many there are.
"""

from __future__ import annotations

import functools
import os
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg

from benchmarks.rows import Row
from benchmarks.sample_events import sample_events
from benchmarks.servers import Servers
from benchmarks.workers import Worker, wait_until
from billing import admin
from billing.core.settings import Settings
from billing.core.shards import queue_of, shard_of
from billing.events.links import Outgoing
from billing.events.publisher import Publisher

EVENTS: Final = 400_000
EVENTS_QUICK: Final = 25_000
SLICES: Final = 50
CLIENTS: Final = 200
SLICE_SECONDS: Final = 300.0
RESIDENT_MARK: Final = 150.0
GROWTH_MARK: Final = 5.0


def rows(servers: Servers) -> list[Row]:
    """Measure. Raises `NotInstalled` without RabbitMQ."""
    events = int(os.environ.get("MEMORY_EVENTS") or (EVENTS_QUICK if servers.quick else EVENTS))
    with (
        servers.deployment("memory", redis_database=0, prices=[]) as settings,
        tempfile.TemporaryDirectory(prefix="benchmark-") as directory,
    ):
        client_ids = [f"client-{number}" for number in range(CLIENTS)]
        for client_id in client_ids:
            admin.add_client(settings, client_id)
        environment = {
            "BILLING_REDIS_URL": settings.redis_url,
            "BILLING_RESULT_URL": settings.result_url,
            "BILLING_DATABASE_URL": settings.database_url,
            "BILLING_BROKER_URL": settings.broker_url,
            "BENCHMARK_BILLED": "yes",
        }
        with Worker("consumer-memory", environment, Path(directory)) as worker:
            worker.start("-P", "solo", "--fulfillment")
            resident = _feed(settings, worker, client_ids, events)
    servers.drop_database("memory")
    return rows_of(resident, events)


def rows_of(resident: Sequence[int], events: int) -> list[Row]:
    """Return the rows of what was resident, in bytes, after each slice of the events."""
    megabytes = [count / 2**20 for count in resident]
    early, last = megabytes[len(megabytes) // 10], megabytes[-1]
    raw = {"megabytes": megabytes, "events": events}
    return [
        Row(
            name=f"memory of the fulfillment worker, {events:,} events",
            value=max(megabytes),
            unit="MB resident",
            against="the most, looked at after each slice",
            mark=RESIDENT_MARK,
            met=max(megabytes) <= RESIDENT_MARK,
            raw=raw,
        ),
        Row(
            name="what the last nine tenths of these events added",
            value=last - early,
            unit="MB",
            against=f"after a tenth: {early:.1f} MB, after all: {last:.1f} MB",
            mark=GROWTH_MARK,
            met=last - early <= GROWTH_MARK,
            raw=raw,
        ),
    ]


def _feed(settings: Settings, worker: Worker, client_ids: Sequence[str], events: int) -> list[int]:
    """Publish all events, slice by slice, and return what was resident after each."""
    seeded, publisher, resident = random.Random(3), Publisher(settings), []
    with psycopg.connect(settings.database_url, autocommit=True) as session:
        for number in range(1, SLICES + 1):
            for queue, messages in _slice(settings, seeded, client_ids, events // SLICES).items():
                publisher.publish_batch(queue, messages)
            wanted = number * (events // SLICES)
            wait_until(functools.partial(_are_written, session, wanted), f"{wanted:,} events are rows", SLICE_SECONDS)
            resident.append(worker.resident_bytes())
        written = _written(session)
    publisher.close()
    if written != SLICES * (events // SLICES):
        raise RuntimeError(f"{written} events are rows, of {events}")
    return resident


def _slice(
    settings: Settings, seeded: random.Random, client_ids: Sequence[str], count: int
) -> dict[int, list[Outgoing]]:
    """Return new events as workers publish them, by usage queue."""
    found: dict[int, list[Outgoing]] = {}
    for event in sample_events(seeded, seeded.choices(client_ids, k=count)):
        shard = shard_of(event.client_id, settings.shards)
        message = Outgoing(body=msgspec.json.encode(event), shard=shard, entry_id=f"{event.occurred_at}-0")
        found.setdefault(queue_of(shard, settings.usage_queues), []).append(message)
    return found


def _are_written(session: psycopg.Connection[Any], wanted: int) -> bool:
    return _written(session) >= wanted


def _written(session: psycopg.Connection[Any]) -> int:
    """Return how many events are rows, by their quantities of one: counting ten thousands of rows again takes long."""
    row = session.execute("SELECT coalesce(sum(quantity), 0)::bigint FROM usage_rollup").fetchone()
    return 0 if row is None else int(row[0])
