"""What a reserve costs as a deployment grows: clients up to a million, grants of one client up to 64.

Server time is what Redis counts itself; the client's time is a ratio to `DECR` in the same moment, since a minute of
this machine is not like the next. Memory is the server's own count. Clients are keys in Redis, with one grant each.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final, cast

import redis

from benchmarks.bucket_work import (
    PIPELINE,
    Recorder,
    Work,
    buckets_of,
    buckets_on,
    commands_of,
    median_seconds,
    send,
    used_memory,
    work_of,
)
from benchmarks.connections import connection_rows
from benchmarks.rows import Row, growth
from benchmarks.servers import Servers

GRANTS: Final = (1, 2, 4, 8, 16, 32, 64)
CLIENTS: Final = (1, 1_000, 100_000, 1_000_000)
CLIENTS_QUICK: Final = (1, 100, 1_000, 20_000)
BLOCK: Final = 100
BLOCKS: Final = 20
BLOCKS_QUICK: Final = 8
CREDITS: Final = 10**9
#: A few clients weigh less than what the server's own count varies by.
WEIGHED_LEAST: Final = 1_000


def rows(servers: Servers) -> list[Row]:
    """Measure all growths on the stack's Redis, which is emptied."""
    blocks = BLOCKS_QUICK if servers.quick else BLOCKS
    with redis.Redis.from_url(servers.endpoints.redis_url, protocol=2) as client:
        grants = grant_rows(client, GRANTS, blocks)
        clients = client_rows(client, CLIENTS_QUICK if servers.quick else CLIENTS, blocks)
        client.flushall()
    return [*clients, *grants, *connection_rows(servers)]


def grant_rows(client: redis.Redis, grants: Sequence[int], blocks: int) -> list[Row]:
    """Return the server time of reserves and of settles of clients with ever more grants, who take turns."""
    buckets = buckets_on(client, grants=1)
    reserves: dict[int, list[float]] = {count: [] for count in grants}
    settles: dict[int, list[float]] = {count: [] for count in grants}
    for count in grants:
        buckets.open_client(f"grants-{count}")
        for number in range(count):
            buckets.grant(f"grants-{count}", number + 1, CREDITS)
    for _ in range(blocks):
        for count in grants:
            reserve, settle = server_times(client, work_of([f"grants-{count}"] * BLOCK))
            reserves[count].append(reserve)
            settles[count].append(settle)
    stats = "INFO commandstats, µs"
    return [
        growth("reserve, by grants", sizes="grants", unit="server time", against=stats, figures=reserves.items()),
        growth("settle, by grants", sizes="grants", unit="server time", against=stats, figures=settles.items()),
    ]


def client_rows(client: redis.Redis, clients: Sequence[int], blocks: int) -> list[Row]:
    """Return time, server time and memory of a reserve among ever more clients, each of whom is as likely."""
    buckets = buckets_on(client, grants=1)
    client.set("counter", CREDITS)
    seeded = random.Random(5)
    typical: list[tuple[int, list[float]]] = []
    server: list[tuple[int, list[float]]] = []
    memory: list[tuple[int, list[float]]] = []
    first, weight = 0, 0
    for count in clients:
        weight += _opened(client, first, count)
        first = count
        if count >= WEIGHED_LEAST:
            memory.append((count, [weight / count]))
        ratios, times = [], []
        for _ in range(blocks):
            work = work_of([f"client-{seeded.randrange(count)}" for _ in range(2 * BLOCK)])
            times.append(server_times(client, work[:BLOCK])[0])
            holds = [hold for hold, _ in work[BLOCK:]]
            plain = median_seconds(lambda _: client.decr("counter"), holds)
            ratios.append(median_seconds(buckets.reserve, holds) / plain)
        typical.append((count, ratios))
        server.append((count, times))
    stats = "INFO commandstats, µs"
    return [
        growth(
            "reserve, p50, by clients",
            sizes="clients",
            unit="time",
            against="prepared runs, over DECR",
            figures=typical,
        ),
        growth("reserve, by clients", sizes="clients", unit="server time", against=stats, figures=server),
        growth("a client, by clients", sizes="clients", unit="memory", against="used_memory, bytes", figures=memory),
    ]


def server_times(client: redis.Redis, work: Sequence[Work]) -> tuple[float, float]:
    """Return the microseconds of a reserve and of a settle of some work, as the server counts them."""
    found = []
    for commands in commands_of(work):
        client.config_resetstat()
        send(client, commands)
        counted: Any = client.info("commandstats")
        found.append(float(counted["cmdstat_fcall"]["usec_per_call"]))
    return found[0], found[1]


def _opened(client: redis.Redis, first: int, last: int) -> int:
    """Open clients from `first` up to, not including, `last`, with a grant each; return the bytes that they take."""
    recorder = Recorder()
    buckets = buckets_of(cast("redis.Redis", recorder))
    before = used_memory(client)
    for start in range(first, last, PIPELINE):
        recorder.commands = []
        for number in range(start, min(start + PIPELINE, last)):
            buckets.open_client(f"client-{number}")
            buckets.grant(f"client-{number}", number + 1, CREDITS)
        send(client, recorder.commands)
    return used_memory(client) - before
