"""What grows with the history, and should not: a receipt, a plan of what Stripe is told, an insertion.

Two databases with the same clients, months and indexes, one with a hundredth of the other's rows, take turns; a row is
the median of the rounds' ratios. Both are asked the same: the reader's month has as many lines in either, a plan finds
as many new credits, a batch holds as many events. `HISTORY_ROWS` sets the size of the large one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import sqlalchemy

from benchmarks.history import READER, READER_RUNS, WRITERS, History, make_history, writers
from benchmarks.rows import Row
from benchmarks.sample_events import sample_events
from benchmarks.servers import Servers
from billing import admin
from billing.connections import postgres
from billing.core.clock import SystemClock
from billing.core.settings import Settings
from billing.fulfillment.delivery import Delivered
from billing.fulfillment.postgres_log import PostgresUsageLog
from billing.receipts.writing import write_html
from billing.schema.migrate import migrate
from billing.sinks.sync.planning.planner import Planner, PlanRules
from billing.sinks.sync.postgres.planning import PostgresPlanningLog

ROWS: Final = 10_000_000
ROWS_QUICK: Final = 1_000_000
SMALLER: Final = 100
CLIENTS: Final = 10_000
ROUNDS: Final = 9
BATCH: Final = 500
#: SKUs of each writer that a plan finds something new of.
UNPLANNED: Final = 5
MARK: Final = 1.5
ANSWER_SECONDS: Final = 1.0

#: Have every writer use more of some SKUs, this hour.
_USE: Final = sqlalchemy.text("""
INSERT INTO usage_rollup AS rollup (client_id, sku, hour, credits, quantity)
SELECT client_id, 'sku-' || number, date_trunc('hour', now()), 10, 1
FROM unnest(CAST(:clients AS text[])) AS client_id, generate_series(1, :rows) AS number
ON CONFLICT (client_id, sku, hour) DO UPDATE SET credits = rollup.credits + 10, quantity = rollup.quantity + 1
""")


class Side:
    """One history, and what asks it: each method does what is to be timed, and answers how much that was."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.settings = settings = history.settings
        self._engine = postgres.engine(settings)
        self._planner = Planner(
            PostgresPlanningLog(self._engine), SystemClock(), PlanRules(meter="benchmark", calendar=True)
        )
        self._log = PostgresUsageLog(lambda: postgres.connect(settings), shards=settings.shards)

    def prepare(self) -> None:
        """Have the writers use something, for the plan."""
        with self._engine.begin() as connection:
            connection.execute(_USE, {"clients": writers(), "rows": UNPLANNED})

    def receipt(self, _: Sequence[Delivered]) -> int:
        """Read the reader's month."""
        return sum(1 for _ in admin.receipt(self.settings, READER, self.history.month, self.history.month_end))

    def plan(self, _: Sequence[Delivered]) -> int:
        """Plan what is new."""
        return self._planner.plan().increments

    def insert(self, batch: Sequence[Delivered]) -> int:
        """Write a batch."""
        return self._log.write(batch).events

    def html(self, _: Sequence[Delivered]) -> int:
        """Write the reader's month as a file for a browser."""
        with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
            path = Path(directory) / "receipt.html"
            return write_html(self.settings, READER, path, self.history.month, self.history.month_end).lines

    def page(self, _: Sequence[Delivered]) -> int:
        """Read the last hundred lines."""
        return len(admin.usage(self.settings, READER))

    def close(self) -> None:
        """Close what it asks with."""
        self._log.close()
        self._engine.dispose()
        admin.close(self.settings)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What both sides are asked, and how much the answer must be."""

    name: str
    ask: Callable[[Side, Sequence[Delivered]], int]
    expected: int


QUESTIONS: Final = (
    Question(name=f"receipt of one client-month, {READER_RUNS:,} lines", ask=Side.receipt, expected=READER_RUNS),
    Question(name=f"plan of one sync, {WRITERS} clients", ask=Side.plan, expected=WRITERS),
    Question(name=f"insertion of {BATCH} events", ask=Side.insert, expected=BATCH),
)
#: What somebody waits for who asks what they paid for.
ANSWERS: Final = (
    Question(name="the receipt as a page", ask=Side.html, expected=READER_RUNS),
    Question(name="the last 100 lines", ask=Side.page, expected=100),
)


def rows(servers: Servers) -> list[Row]:
    """Make both histories, and measure."""
    wanted = int(os.environ.get("HISTORY_ROWS") or (ROWS_QUICK if servers.quick else ROWS))
    now = datetime.now(UTC)
    with (
        _side(servers, "small", wanted // SMALLER, now) as small,
        _side(servers, "large", wanted, now) as large,
    ):
        return measure(small, large, rounds=3 if servers.quick else ROUNDS)


def measure(small: Side, large: Side, *, rounds: int) -> list[Row]:
    """Return one row per question, and one per answer that somebody waits for."""
    seconds: dict[tuple[str, Side], list[float]] = {}
    for number in range(1 + rounds):
        batch = _batch(number)
        for side in (small, large):
            side.prepare()
            for question in (*QUESTIONS, *ANSWERS):
                started = time.perf_counter()
                answer = question.ask(side, batch)
                took = time.perf_counter() - started
                if answer != question.expected:
                    message = f"{question.name}: {answer} instead of {question.expected}"
                    raise RuntimeError(message)
                if number:  # the first round warms up
                    seconds.setdefault((question.name, side), []).append(took)
    size = large.history.rows
    return [
        *(_ratio(one, seconds[one.name, small], seconds[one.name, large], size) for one in QUESTIONS),
        *(_waited(one, seconds[one.name, large], size) for one in ANSWERS),
    ]


def _ratio(question: Question, small: Sequence[float], large: Sequence[float], size: int) -> Row:
    ratio = statistics.median(many / few for few, many in zip(small, large, strict=True))
    few, many = statistics.median(small), statistics.median(large)
    return Row(
        name=f"{question.name}, {size:,} rows",
        value=ratio,
        unit="x the time",
        against=f"1 % of the history: {few * 1000:,.0f} ms (all of it: {many * 1000:,.0f} ms)",
        mark=MARK,
        met=ratio <= MARK,
        raw={"seconds": list(large), "seconds_of_1_percent": list(small)},
    )


def _waited(question: Question, seconds: Sequence[float], size: int) -> Row:
    took = statistics.median(seconds)
    return Row(
        name=f'"what did I pay for?": {question.name}',
        value=took,
        unit="s",
        against=f"one client of a history of {size:,} rows",
        mark=ANSWER_SECONDS,
        met=took <= ANSWER_SECONDS,
        raw={"seconds": list(seconds)},
    )


def _batch(number: int) -> list[Delivered]:
    """Return new events of the writers, the same for both sides."""
    seeded = random.Random(number)
    events = sample_events(seeded, seeded.choices(writers(), k=BATCH))
    return [Delivered(body=msgspec.json.encode(event), queue="q", decoded=event) for event in events]


@contextlib.contextmanager
def _side(servers: Servers, name: str, rows: int, now: datetime) -> Iterator[Side]:
    settings = Settings(database_url=servers.fresh_database(f"growth_{name}"))
    migrate(settings)
    side = Side(make_history(settings, rows=rows, clients=CLIENTS, now=now))
    try:
        yield side
    finally:
        side.close()
        servers.drop_database(f"growth_{name}")
