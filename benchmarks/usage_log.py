"""Writing one batch, with all that its transaction does, against a plain COPY of the same rows.

Both sides encode the rows the same way, over one connection each, into tables with the same indexes and constraints,
and commit; they take turns, now the one first and now the other. The plain side finds no duplicates,
derives no sums, locks no shard and reads no client.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import psycopg

from benchmarks.rows import Row, alternated
from benchmarks.sample_events import sample_events
from benchmarks.servers import Servers
from billing.connections import postgres
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.events.usage_event import UsageEvent
from billing.fulfillment import usage_rows
from billing.fulfillment.delivery import Delivered
from billing.fulfillment.log import UsageLog
from billing.fulfillment.postgres_log import PostgresUsageLog
from billing.schema.migrate import migrate

EVENTS: Final = 500
CLIENTS: Final = 20
BATCHES: Final = 60
WARM_UP: Final = 10
MARK: Final = 0.4

_COPY: Final = f"COPY plain ({', '.join(usage_rows.COLUMNS)}) FROM STDIN"


def rows(servers: Servers) -> list[Row]:
    """Measure, and return the row with the mark, and the rate behind it."""
    settings = Settings(database_url=servers.fresh_database("usage_log"))
    migrate(settings)
    clients = [f"client-{number}" for number in range(CLIENTS)]
    log = PostgresUsageLog(lambda: postgres.connect(settings), shards=settings.shards)
    with postgres.connect(settings) as plain:
        shards = [shard_of(client_id, settings.shards) for client_id in clients]
        plain.execute(
            "INSERT INTO client (client_id, shard) SELECT * FROM unnest(%s::text[], %s::int[])", [clients, shards]
        )
        plain.execute("CREATE TABLE plain (LIKE usage_history INCLUDING ALL)")
        plain.commit()
        log_seconds, plain_seconds = _take_turns(log, plain, clients)
    log.close()
    ratio = statistics.median(plain / ours for plain, ours in zip(plain_seconds, log_seconds, strict=True))
    rate = EVENTS / statistics.median(log_seconds)
    plain_rate = EVENTS / statistics.median(plain_seconds)
    against = f"plain COPY: {plain_rate:,.0f} rows/s"
    return [
        Row(
            name="writing one batch of 500 events",
            value=ratio,
            unit="x the rate",
            against=against,
            mark=MARK,
            met=ratio >= MARK,
        ),
        Row(name="usage log, one consumer", value=rate, unit="events/s", against="", mark=None, met=None),
    ]


def _take_turns(
    log: UsageLog, plain: psycopg.Connection[tuple[Any, ...]], clients: Sequence[str]
) -> tuple[list[float], list[float]]:
    """Return the seconds of each batch on either side, after a warm-up."""
    seeded = random.Random(1)
    log_seconds, plain_seconds = [], []
    for number in range(WARM_UP + BATCHES):
        for side in alternated(("log", "plain"), number):
            events = _events(seeded, clients)
            if side == "log":
                log_seconds.append(_write(log, events))
            else:
                plain_seconds.append(_copy(plain, events))
    return log_seconds[WARM_UP:], plain_seconds[WARM_UP:]


def _write(log: UsageLog, events: Sequence[UsageEvent]) -> float:
    """Return the seconds of writing the events with all that the log's transaction does."""
    batch = [Delivered(body=msgspec.json.encode(event), queue="q", decoded=event) for event in events]
    started = time.perf_counter()
    report = log.write(batch)
    seconds = time.perf_counter() - started
    if report.rows_inserted != EVENTS:
        message = f"the log did not insert the whole batch: {report}"
        raise RuntimeError(message)
    return seconds


def _copy(plain: psycopg.Connection[tuple[Any, ...]], events: Sequence[UsageEvent]) -> float:
    """Return the seconds of encoding the events, copying them and committing."""
    text = _with_timestamps(usage_rows.copy_text(events))
    started = time.perf_counter()
    usage_rows.copy_text(events)
    with plain.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.write(text)
    plain.commit()
    return time.perf_counter() - started


def _with_timestamps(text: bytes) -> bytes:
    """Return COPY text whose times are timestamps: the plain table has no step in which they are converted."""
    lines = []
    for line in text.decode().splitlines():
        head, *times = line.rsplit("\t", 2)
        lines.append("\t".join([head, *(datetime.fromtimestamp(int(ms) / 1000, UTC).isoformat() for ms in times)]))
    return ("\n".join(lines) + "\n").encode()


def _events(seeded: random.Random, clients: Sequence[str]) -> list[UsageEvent]:
    return sample_events(seeded, seeded.choices(clients, k=EVENTS))
