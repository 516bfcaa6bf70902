"""What grows with the history, and should not: a receipt, a plan of what Stripe is told, an insertion.

Three databases with the same clients, months and indexes, with a hundredth, a tenth and all of the rows, take turns; a
row is the median of the rounds' ratios. All are asked the same: the reader's month has as many lines in each, a plan
finds as many new credits, a batch holds as many events. `HISTORY_ROWS` sets the size of the large one.
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
from benchmarks.rows import Point, Row, alternated
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
ROWS_QUICK: Final = 100_000
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
    with contextlib.ExitStack() as stack:
        with servers.loading():
            sides = [stack.enter_context(_side(servers, wanted // part, now)) for part in (SMALLER, 10, 1)]
        return measure(*sides, rounds=3 if servers.quick else ROUNDS)


def measure(*sides: Side, rounds: int) -> list[Row]:
    """Return one row per question, and one per answer that somebody waits for. The smallest history comes first."""
    seconds: dict[tuple[str, Side], list[float]] = {}
    for number in range(1 + rounds):
        batch = _batch(number)
        for side in alternated(sides, number):
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
    large = sides[-1]
    return [
        *(_ratio(one, [(side.history.rows, seconds[one.name, side]) for side in sides]) for one in QUESTIONS),
        *(_waited(one, seconds[one.name, large], large.history.rows) for one in ANSWERS),
    ]


def _ratio(question: Question, sides: Sequence[tuple[int, Sequence[float]]]) -> Row:
    small, (size, large) = sides[0][1], sides[-1]
    few, many = statistics.median(small), statistics.median(large)
    points = [
        Point(
            size=rows,
            value=statistics.median(seconds) * 1000,
            ratio=statistics.median(own / least for least, own in zip(small, seconds, strict=True)),
        )
        for rows, seconds in sides
    ]
    ratio = points[-1].ratio
    return Row(
        name=f"{question.name}, {size:,} rows",
        value=ratio,
        unit="x the time",
        against=f"{sides[0][0]:,} rows: {few * 1000:,.0f} ms (all of them: {many * 1000:,.0f} ms)",
        mark=MARK,
        met=ratio <= MARK,
        raw={"seconds": list(large), "seconds_of_the_smallest": list(small)},
        sizes="rows",
        series=tuple(points),
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
def _side(servers: Servers, rows: int, now: datetime) -> Iterator[Side]:
    name = f"growth_{rows}"
    settings = Settings(database_url=servers.fresh_database(name))
    migrate(settings)
    side = Side(make_history(settings, rows=rows, clients=CLIENTS, now=now))
    try:
        yield side
    finally:
        side.close()
        servers.drop_database(name)
