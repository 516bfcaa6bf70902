"""The plain ways, beside the consumer: a Celery task per event, and celery-batches, which joins 500 tasks.

A real worker with four children on a real queue that was filled before, in turns with the consumer; each child keeps
its connection, rows go into a table with the history's indexes, and nothing is derived, compared or kept for whoever
refuses it. They are rows for the reader to compare with, and have no mark. celery-batches runs where an environment has
it: `BATCHES_PYTHON`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
import psycopg

from benchmarks.rows import Row, alternated, alternative
from benchmarks.sample_events import sample_events
from benchmarks.servers import Servers
from benchmarks.workers import ROOT, Worker
from billing.core.settings import Settings
from billing.schema.migrate import migrate

CHILDREN: Final = 4
TURNS: Final = 3
#: Events of one turn. celery-batches has twenty batches for each child, so that its flush timer, which a child's last
#: batch waits for, is not what is measured.
EVENTS: Final = 4_000
EVENTS_IN_BATCHES: Final = 40_000
#: Of the turn that warms up, and of a quick run.
EVENTS_QUICK: Final = 4_000
#: The interpreter of the environment with Celery 5.6: celery-batches 0.11 refuses any later one.
BATCHES_PYTHON: Final = os.environ.get("BATCHES_PYTHON") or str(ROOT / ".venv-5.6" / "bin" / "python")
LACKS: Final = {
    "task": "no sums, so no balance from PostgreSQL and nothing to invoice; an event that cannot be inserted is gone "
    "with its task; one commit for each",
    "batches": "no sums, so no balance from PostgreSQL and nothing to invoice; a batch that fails is logged, "
    "acknowledged and gone",
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """A plain way: its worker's name, what it is, how many events a turn has, and what its worker is told."""

    label: str
    name: str
    against: str
    events: int
    options: Mapping[str, str]
    python: str = sys.executable


def rows(servers: Servers, ours: Callable[[], float], client_ids: Sequence[str]) -> list[Row]:
    """Measure in turns with the consumer, whose rate `ours` measures, and return how many times as fast it is.

    Raises `NotInstalled` without RabbitMQ.
    """
    quick = servers.quick
    ways = [
        Way(
            label="task",
            name="a Celery task per event",
            against=f"one INSERT per event, {CHILDREN} children, a classic queue; our consumer is one process, its "
            "queue a quorum queue",
            events=EVENTS_QUICK if quick else EVENTS,
            options={},
        )
    ]
    missing = missing_batches(BATCHES_PYTHON)
    joined = EVENTS_QUICK if quick else EVENTS_IN_BATCHES
    batches = Way(
        label="batches",
        name="celery-batches, 500 events a batch",
        against=f"executemany, {CHILDREN} children, Celery 5.6, a classic queue, {joined:,} events, the flush timer of "
        "a child's last batch",
        events=joined,
        options={"BENCHMARK_BATCHES": "yes"},
        python=BATCHES_PYTHON,
    )
    measured = take_turns(servers, ours, client_ids, ways if missing else [*ways, batches], 1 if quick else TURNS)
    if missing:
        measured.append(
            Row(name=batches.name, value=0, unit="", against=missing, mark=None, met=None, lacks=LACKS["batches"])
        )
    return measured


def take_turns(
    servers: Servers, ours: Callable[[], float], client_ids: Sequence[str], ways: Sequence[Way], turns: int
) -> list[Row]:
    """Return a row for each way: the median of the turns' ratios, the first of which warms up."""
    mine: list[float] = []
    rates: dict[str, list[float]] = {way.label: [] for way in ways}
    with contextlib.ExitStack() as stack:
        inserters = [stack.enter_context(Inserter(servers, client_ids, way)) for way in ways]
        for number in range(1 + turns):
            for inserter in alternated([None, *inserters], number):
                if inserter is None:
                    mine.append(ours())
                else:
                    rates[inserter.way.label].append(inserter.rate(1 + number))
        for inserter in inserters:
            inserter.check()
    rate = statistics.median(mine[1:])
    return [
        alternative(
            way.name,
            rate=rate / statistics.median(own / one for own, one in zip(mine[1:], rates[way.label][1:], strict=True)),
            ours=rate,
            against=way.against,
            lacks=LACKS[way.label],
            raw={"rates": rates[way.label][1:], "rates_of_ours": mine[1:], "events": way.events},
        )
        for way in ways
    ]


def missing_batches(python: str) -> str:
    """Return why celery-batches cannot be measured with an interpreter; nothing where it can."""
    if not Path(python).exists():
        return "not measured: it needs Celery 5.6, whose environment is not here (make .venv-5.6/.installed)"
    tried = subprocess.run([python, "-c", "import celery_batches, psycopg"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "not measured: the environment with Celery 5.6 has no celery-batches"


class Inserter:
    """A worker that inserts events into a table of its own database, from a virtual host of its own."""

    def __init__(self, servers: Servers, client_ids: Sequence[str], way: Way) -> None:
        self.way = way
        self._servers, self._client_ids = servers, client_ids
        self._seeded = random.Random(2)
        self._sent = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def _start(self, stack: contextlib.ExitStack) -> None:
        name = f"inserting-{self.way.label}"
        settings = Settings(database_url=self._servers.fresh_database(name))
        stack.callback(self._servers.drop_database, name)
        migrate(settings)
        self._connection = stack.enter_context(psycopg.connect(settings.database_url, autocommit=True))
        self._connection.execute("CREATE TABLE plain (LIKE usage_history INCLUDING ALL)")
        environment = {
            "BILLING_RESULT_URL": self._servers.endpoints.result_url,
            "BILLING_BROKER_URL": stack.enter_context(self._servers.virtual_host(name)),
            "BENCHMARK_BILLED": "no",
            "BENCHMARK_DATABASE_URL": settings.database_url,
            **self.way.options,
        }
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        self._worker = stack.enter_context(Worker(name, environment, directory, python=self.way.python))
        self._worker.start("-P", "prefork", "-c", str(CHILDREN))

    def rate(self, number: int) -> float:
        """Return how many events a second the worker inserts in one turn. The first, number 1, warms up, with fewer."""
        count = EVENTS_QUICK if number == 1 else self.way.events
        self._sent += count
        events = sample_events(self._seeded, self._seeded.choices(self._client_ids, k=count))
        calls = [msgspec.json.encode(event).decode() for event in events]
        return self._worker.run(number, "insert", calls, billed=False).rate

    def check(self) -> None:
        """Before a figure is quoted: every event is there."""
        found = self._connection.execute("SELECT count(*) FROM plain").fetchone()
        if found != (self._sent,):
            raise RuntimeError(f"{self.way.name}: not every event was inserted: {found}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
