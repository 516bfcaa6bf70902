"""The plain ways, beside the consumer: a Celery task per event, and celery-batches, which joins 500 tasks.

A real worker with four children on a real queue that was filled before; each child keeps its connection, rows go into a
table with the history's indexes, and nothing is derived, compared or kept for whoever refuses it. They are rows for the
reader to compare with, and have no mark. celery-batches runs where an environment has it: `BATCHES_PYTHON`.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import psycopg

from benchmarks.rows import Row, alternative
from benchmarks.sample_events import sample_events
from benchmarks.servers import Servers
from benchmarks.workers import ROOT, Worker
from billing.core.settings import Settings
from billing.schema.migrate import migrate

EVENTS: Final = 4_000
CHILDREN: Final = 4
TURNS: Final = 3
#: The interpreter of the environment with Celery 5.6: celery-batches 0.11 refuses any later one.
BATCHES_PYTHON: Final = os.environ.get("BATCHES_PYTHON") or str(ROOT / ".venv-5.6" / "bin" / "python")
LACKS: Final = {
    "task": "no sums, so no balance from PostgreSQL and nothing to invoice; an event that cannot be inserted is gone "
    "with its task; one commit for each",
    "batches": "no sums, so no balance from PostgreSQL and nothing to invoice; a batch that fails is logged, "
    "acknowledged and gone",
}


def rows(servers: Servers, consumer_rate: float, client_ids: Sequence[str]) -> list[Row]:
    """Measure, and return how many times as fast the consumer is. Raises `NotInstalled` without RabbitMQ."""
    turns = 1 if servers.quick else TURNS
    rates = insert_rates(servers, client_ids, turns, {})
    measured = [
        alternative(
            "a Celery task per event",
            rate=statistics.median(rates),
            ours=consumer_rate,
            against=f"one INSERT per event, {CHILDREN} children; our consumer is one process",
            lacks=LACKS["task"],
            raw={"rates": rates, "consumer_rate": consumer_rate},
        )
    ]
    name = "celery-batches, 500 events a batch"
    missing = missing_batches(BATCHES_PYTHON)
    if missing:
        lacks = LACKS["batches"]
        return [*measured, Row(name=name, value=0, unit="", against=missing, mark=None, met=None, lacks=lacks)]
    rates = insert_rates(servers, client_ids, turns, {"BENCHMARK_BATCHES": "yes"}, python=BATCHES_PYTHON)
    return [
        *measured,
        alternative(
            name,
            rate=statistics.median(rates),
            ours=consumer_rate,
            against=f"executemany, {CHILDREN} children, Celery 5.6",
            lacks=LACKS["batches"],
            raw={"rates": rates, "consumer_rate": consumer_rate},
        ),
    ]


def missing_batches(python: str) -> str:
    """Return why celery-batches cannot be measured with an interpreter; nothing where it can."""
    if not Path(python).exists():
        return "not measured: it needs Celery 5.6, whose environment is not here (make .venv-5.6/.installed)"
    tried = subprocess.run([python, "-c", "import celery_batches, psycopg"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "not measured: the environment with Celery 5.6 has no celery-batches"


def insert_rates(
    servers: Servers,
    client_ids: Sequence[str],
    turns: int,
    options: dict[str, str],
    *,
    python: str = sys.executable,
) -> list[float]:
    """Return how many events a second a worker inserts, turn by turn, after one to warm up."""
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
            **options,
        }
        with Worker("one-by-one", environment, Path(directory), python=python) as worker:
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
    return rates[1:]
