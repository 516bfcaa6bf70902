"""Buckets against raw commands through the same client: latency, throughput, server time, memory, one hot bucket.

Every figure is a ratio within one run, or an absolute that the server itself counts. The two sides take turns in short
blocks, so that both meet the same moment of the machine. Runs, and for the pipelined row whole commands, are prepared
before the clock, as in the prototypes that the marks are of: what a client pays for both is in `charging`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any, Final, cast

import redis

from benchmarks.bucket_work import (
    Recorder,
    buckets_of,
    buckets_on,
    commands_of,
    median_seconds,
    send,
    some_holds,
    some_work,
    used_memory,
)
from benchmarks.hot_bucket import hot_bucket_rows
from benchmarks.rows import Row
from benchmarks.servers import Servers
from billing.credits.scripts import Command
from billing.credits.values import ReserveOutcome

BLOCK: Final = 100
BLOCKS: Final = 30
PIPELINE: Final = 50
#: Buckets, and holds, whose memory is measured.
MEASURED: Final = 100_000

#: The least that could be called a reservation: what it costs shows how much of a figure is the machine's moment.
BARE: Final = """
local b = redis.call('GET', KEYS[1])
if tonumber(b) < 3 or redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local t = redis.call('TIME')
redis.call('DECRBY', KEYS[1], 3)
redis.call('SET', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[3], t[1], KEYS[2])
return 1
"""


def rows(servers: Servers) -> list[Row]:
    """Measure all rows on the stack's Redis, which is emptied, and its PostgreSQL."""
    client = redis.Redis.from_url(servers.endpoints.redis_url, protocol=2)
    measured = [
        reserve_row(client, grants=1, mark=1.6),
        reserve_row(client, grants=8, mark=1.7),
        reserve_row(client, grants=64, mark=None),
        pipelined_row(client),
        server_time_row(client),
        *memory_rows(client, MEASURED // 10 if servers.quick else MEASURED),
    ]
    client.close()
    return measured + hot_bucket_rows(servers.endpoints.redis_url, servers.endpoints.database_url, quick=servers.quick)


def reserve_row(client: redis.Redis, *, grants: int, mark: float | None) -> Row:
    """`reserve`, one connection: the median call against the median `DECR` of the same moment."""
    buckets = buckets_on(client, grants=grants)
    client.set("counter", 10**9)
    bare: Any = client.register_script(BARE)
    ratios, bares, reserves, decrements = [], [], [], []
    for _ in range(BLOCKS):
        holds = [hold for hold, _ in some_work(BLOCK)]
        decrement = median_seconds(lambda _: client.decr("counter"), holds)
        bares.append(median_seconds(lambda hold: bare(("counter", f"bare:{hold.token}", "due"), ("held",)), holds))
        reserve = median_seconds(buckets.reserve, holds)
        ratios.append(reserve / decrement)
        bares[-1] /= decrement
        reserves.append(reserve)
        decrements.append(decrement)
    if buckets.reserve(some_work(1)[0][0]).outcome is not ReserveOutcome.HELD:
        message = "the benchmark's reserves were not admitted"
        raise RuntimeError(message)
    ratio = statistics.median(ratios)
    times = f"DECR: {min(decrements) * 1e6:.0f} µs, reserve: {min(reserves) * 1e6:.0f} µs"
    return Row(
        name=f"reserve, one connection, p50, {grants} grant{'s' if grants > 1 else ''}",
        value=ratio,
        unit="x the time",
        against=f"prepared runs; {times}; a bare script: {statistics.median(bares):.2f} x",
        mark=mark,
        met=None if mark is None else ratio <= mark,
        raw={"reserve": ratios, "bare script": bares},
    )


def pipelined_row(client: redis.Redis) -> Row:
    """Reserve + settle with outbox, pipelined by 50, against two `DECR` the same way."""
    buckets_on(client, grants=1)
    client.set("counter", 10**9)
    ratios, rates = [], []
    for _ in range(BLOCKS):
        work = some_work(2 * PIPELINE)
        reserves, settles = commands_of(work)
        raw = _seconds(client, [("DECR", "counter")] * (2 * len(work)))
        ours = _seconds(client, reserves) + _seconds(client, settles)
        ratios.append(raw / ours)
        rates.append(len(work) / ours)
    ratio = statistics.median(ratios)
    return Row(
        name="reserve + settle with outbox, prepared commands, pipelined by 50",
        value=ratio,
        unit="x the rate",
        against=f"two DECR, prepared the same way ({max(rates):,.0f} runs/s)",
        mark=0.22,
        met=ratio >= 0.22,
    )


def server_time_row(client: redis.Redis) -> Row:
    """Server time of one reserve + settle, as the server counts it itself while it is busy (pipelined by 50)."""
    buckets_on(client, grants=1)
    totals = []
    for _ in range(BLOCKS):
        work = some_work(PIPELINE)
        total = 0.0
        for commands in commands_of(work):
            client.config_resetstat()
            _seconds(client, commands)
            counted: Any = client.info("commandstats")
            total += counted["cmdstat_fcall"]["usec_per_call"]
        totals.append(total)
    typical = statistics.median(totals)
    return Row(
        name="server time of one reserve + settle, 1 grant",
        value=typical,
        unit="µs",
        against=f"INFO commandstats (quickest block: {min(totals):.1f} µs)",
        mark=35.0,
        met=typical <= 35.0,
    )


def memory_rows(client: redis.Redis, count: int) -> list[Row]:
    """Bytes per idle bucket of one grant, and per hold of a client of its own, by the server's own count."""
    buckets_on(client, grants=1)
    recorder = Recorder()
    buckets = buckets_of(cast("redis.Redis", recorder))
    ids = [f"client-{number}" for number in range(count)]
    for number, client_id in enumerate(ids, start=1):
        buckets.open_client(client_id)
        buckets.grant(client_id, number, 1_000_000)
    idle = _bytes_of(client, recorder.commands) / count
    recorder.commands = []
    for hold in some_holds(ids):
        buckets.reserve(hold)
    held = _bytes_of(client, recorder.commands) / count
    against = f"used_memory, {count:,} of them"
    return [
        Row(name="memory per idle bucket", value=idle, unit="B", against=against, mark=400.0, met=idle <= 400),
        Row(name="memory per hold", value=held, unit="B", against=against, mark=700.0, met=held <= 700),
    ]


def _seconds(client: redis.Redis, commands: Sequence[Command]) -> float:
    """Send commands in pipelines of 50 and return the time it took."""
    started = time.perf_counter()
    for start in range(0, len(commands), PIPELINE):
        pipeline: Any = client.pipeline(transaction=False)
        for command in commands[start : start + PIPELINE]:
            pipeline.execute_command(*command)
        for answer in pipeline.execute():
            if isinstance(answer, bytes) and not answer.startswith((b"HELD", b"SETTLED")):
                message = f"the server answered {answer!r}"
                raise RuntimeError(message)
    return time.perf_counter() - started


def _bytes_of(client: redis.Redis, commands: Sequence[Command]) -> int:
    """Send commands, and return by how much the server's memory has grown."""
    before = used_memory(client)
    send(client, commands)
    return used_memory(client) - before
