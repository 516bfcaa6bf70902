"""After a total loss: writing the buckets of a whole fleet anew, and the time until a first client is served again.

Both are of a real PostgreSQL and Valkey, every client with two grants, one of them begun, and one in a hundred with a
hold; a rebuild reads what is spent of each grant, not the rows of usage behind it: there are none. The second is what
comes on top of what a rebuild waits for by intent: a renewal of all running attempts, and a marker through RabbitMQ,
which is timed apart.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import redis

from benchmarks.bucket_work import some_holds
from benchmarks.rows import Row
from benchmarks.servers import Servers
from billing.connections import postgres
from billing.core.errors import Retryable
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.credits.values import ReserveOutcome
from billing.credits.verbs import Verbs
from billing.fulfillment.consumer import Consumer
from billing.fulfillment.postgres_log import PostgresUsageLog
from billing.integration.loops import Loop
from billing.recovery.flush import Flush
from billing.recovery.rebuild import Rebuilder, assertion_seconds
from billing.recovery.writing import write_shard
from billing.task.runtime import Runtime

CLIENTS: Final = 100_000
#: One client in so many has a hold.
HOLDS_EVERY: Final = 100
GRANTED: Final = 1_000_000
SPENT: Final = 1_234
REBUILD_MARK_SECONDS: Final = 30.0
SERVED_MARK_SECONDS: Final = 2.0
LOSSES: Final = 3
BOUND_SECONDS: Final = 300.0
#: A short lease, so that what is waited for by intent is short beside what is measured.
LEASE_SECONDS: Final = 3.0
#: How often the fulfillment worker looks for shards that are lost (integration/services.py).
LOOK_SECONDS: Final = 1.0


def rows(servers: Servers) -> list[Row]:
    """Measure both; the second needs RabbitMQ."""
    clients = CLIENTS // 10 if servers.quick else CLIENTS
    with servers.deployment("recovery", redis_database=0, prices=[]) as own:
        settings = dataclasses.replace(own, lease_seconds=LEASE_SECONDS)
        runtime = Runtime(lambda: settings)
        try:
            ids = [f"client-{number}" for number in range(clients)]
            add_clients(settings, ids)
            written = rebuild_row(runtime, ids)
            return [written, served_row(runtime, ids, losses=1 if servers.quick else LOSSES)]
        finally:
            runtime.close()


def add_clients(settings: Settings, ids: Sequence[str]) -> None:
    """Write clients, two grants of each, and what the log says that the first has paid, as if they had long been."""
    shards = [shard_of(client_id, settings.shards) for client_id in ids]
    with postgres.connect(settings) as connection:
        connection.execute(
            "INSERT INTO client (client_id, shard) SELECT * FROM unnest(%s::text[], %s::int[])", [list(ids), shards]
        )
        connection.execute(
            "INSERT INTO credit_grant (client_id, credits, key, applied_at) SELECT client_id, %s, key, now()"
            " FROM unnest(%s::text[]) AS clients(client_id), unnest(ARRAY['first', 'second']) AS keys(key)",
            [GRANTED, list(ids)],
        )
        connection.execute(
            "INSERT INTO grant_spent (client_id, grant_id, credits)"
            " SELECT client_id, min(grant_id), %s FROM credit_grant GROUP BY client_id",
            [SPENT],
        )
    with postgres.connect(settings, autocommit=True) as connection:
        connection.execute("ANALYZE")


def rebuild_row(runtime: Runtime, ids: Sequence[str]) -> Row:
    """Write every shard: facts read, buckets planned and written, the shard opened. No wait is part of it."""
    runtime.buckets.time_ms()
    _assert_holds(runtime.buckets, ids)
    seconds = []
    for shard in range(runtime.settings.shards):
        started = time.perf_counter()
        write_shard(runtime, shard)
        seconds.append(time.perf_counter() - started)
    _check(runtime.buckets, ids)
    total, mark = sum(seconds), REBUILD_MARK_SECONDS * len(ids) / CLIENTS
    return Row(
        name=f"rebuild of {len(ids):,} buckets, the writing",
        value=total,
        unit="s",
        against=f"{len(ids) / total:,.0f} buckets/s, {len(seconds)} shards one after the other",
        mark=mark,
        met=total <= mark,
        raw={"seconds per shard": seconds},
    )


def served_row(runtime: Runtime, ids: Sequence[str], *, losses: int) -> Row:
    """Empty Redis while the loops of a fulfillment worker run, and try to reserve until somebody is admitted."""
    settings = runtime.settings
    waits = assertion_seconds(settings)
    beyond, markers, wholes = [], [], []
    with _running(runtime):
        for _ in range(losses):
            markers.append(_marker_seconds(runtime))
            seconds = _served_after_a_loss(runtime, ids)
            wholes.append(seconds)
            beyond.append(seconds - waits - markers[-1])
            _wait_open(runtime)
    value = statistics.median(beyond)
    return Row(
        name=f"first client served after a total loss, {len(ids):,} buckets",
        value=value,
        unit="s",
        against=f"beyond one renewal ({waits:.1f} s) and a marker ({statistics.median(markers):.2f} s)",
        mark=SERVED_MARK_SECONDS,
        met=value <= SERVED_MARK_SECONDS,
        raw={"seconds": wholes, "markers": markers},
    )


def _served_after_a_loss(runtime: Runtime, ids: Sequence[str]) -> float:
    buckets, shards = runtime.buckets, runtime.settings.shards
    one_of_each = list({shard_of(client_id, shards): client_id for client_id in ids[: 50 * shards]}.values())
    with redis.Redis.from_url(runtime.settings.redis_url) as client:
        client.flushall()
    started = time.perf_counter()
    while time.perf_counter() - started < BOUND_SECONDS:
        for client_id, hold in zip(one_of_each, some_holds(one_of_each), strict=True):
            if buckets.reserve(hold).outcome is ReserveOutcome.HELD:
                seconds = time.perf_counter() - started
                buckets.release(client_id, hold.run_id, hold.token)
                return seconds
        time.sleep(0.01)
    message = "nobody was served again"
    raise RuntimeError(message)


def _marker_seconds(runtime: Runtime) -> float:
    """Return how long a marker through every usage queue takes, while nothing else goes on."""
    flush = Flush(runtime, time.sleep)
    started = time.perf_counter()
    next(iter(flush.arrived(range(runtime.settings.shards), outboxes=True)))
    return time.perf_counter() - started


@contextlib.contextmanager
def _running(runtime: Runtime) -> Iterator[None]:
    """Run the consumer and the loop of recovery, as a fulfillment worker does, in its threads."""
    settings = runtime.settings
    consumer = Consumer(settings, PostgresUsageLog(lambda: postgres.connect(settings), shards=settings.shards))
    thread = threading.Thread(target=consumer.run)
    rebuilder = Rebuilder(runtime)
    loop = Loop("recovery", LOOK_SECONDS, rebuilder.step)
    thread.start()
    loop.start()
    try:
        yield
    finally:
        rebuilder.stop()
        loop.stop()
        loop.join(BOUND_SECONDS)
        consumer.stop()
        thread.join()


def _wait_open(runtime: Runtime) -> None:
    deadline = time.perf_counter() + BOUND_SECONDS
    while time.perf_counter() < deadline:
        with contextlib.suppress(Retryable):
            if all(len(set(runtime.buckets.server_of(shard))) == 1 for shard in range(runtime.settings.shards)):
                return
        time.sleep(0.1)
    message = "not every shard is open again"
    raise RuntimeError(message)


def _assert_holds(buckets: Verbs, ids: Sequence[str]) -> None:
    for hold in some_holds(ids[::HOLDS_EVERY]):
        buckets.assert_hold(hold)


def _check(buckets: Verbs, ids: Sequence[str]) -> None:
    """Before a figure is quoted: every bucket is there, to the unit."""
    found: dict[str, Any] = buckets.balances(ids)
    sums = {(balance.granted, balance.spent, balance.owed) for balance in found.values()}
    if len(found) != len(ids) or sums != {(2 * GRANTED, SPENT, 0)}:
        message = f"{len(found)} of {len(ids)} buckets were rebuilt, with {sums}"
        raise RuntimeError(message)
