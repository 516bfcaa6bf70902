"""The plain way, beside the consumer: a Celery task per event, which inserts one row and commits.

A real worker with four children on a real queue that was filled before; each child keeps its connection, rows go into a
table with the history's indexes, and nothing is derived, compared or kept for whoever refuses it. It is a row for the
reader to compare with, and has no mark.
"""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import psycopg

from benchmarks.rows import Row
from benchmarks.sample_events import sample_events
from benchmarks.servers import Servers
from benchmarks.workers import Worker
from billing.core.settings import Settings
from billing.schema.migrate import migrate

EVENTS: Final = 4_000
CHILDREN: Final = 4
TURNS: Final = 3


def rows(servers: Servers, consumer_rate: float, client_ids: Sequence[str]) -> list[Row]:
    """Measure, and return how many times as fast the consumer is. Raises `NotInstalled` without RabbitMQ."""
    turns = 1 if servers.quick else TURNS
    settings = Settings(database_url=servers.fresh_database("one_by_one"))
    migrate(settings)
    with (
        psycopg.connect(settings.database_url, autocommit=True) as connection,
        servers.virtual_host("one-by-one") as broker_url,
        tempfile.TemporaryDirectory(prefix="benchmark-") as directory,
    ):
        connection.execute("CREATE TABLE plain (LIKE usage_history INCLUDING ALL)")
        environment = {
            "BILLING_RESULT_URL": servers.endpoints.result_url,
            "BILLING_BROKER_URL": broker_url,
            "BENCHMARK_BILLED": "no",
            "BENCHMARK_DATABASE_URL": settings.database_url,
        }
        with Worker("one-by-one", environment, Path(directory)) as worker:
            worker.start("-P", "prefork", "-c", str(CHILDREN))
            seeded = random.Random(2)
            rates = []
            for number in range(1, 2 + turns):
                events = sample_events(seeded, seeded.choices(client_ids, k=EVENTS))
                calls = [msgspec.json.encode(event).decode() for event in events]
                rates.append(worker.run(number, "insert", calls).rate)
        found = connection.execute("SELECT count(*) FROM plain").fetchone()
    servers.drop_database("one_by_one")
    if found != (EVENTS * (1 + turns),):
        raise RuntimeError(f"not every event was inserted: {found}")
    rate = statistics.median(rates[1:])
    return [
        Row(
            name="consumer, one process, beside a Celery task per event",
            value=consumer_rate / rate,
            unit="x the rate",
            against=f"one INSERT per event, {CHILDREN} children: {rate:,.0f} events/s",
            mark=None,
            met=None,
            raw={"rates": rates[1:], "consumer_rate": consumer_rate},
        )
    ]
