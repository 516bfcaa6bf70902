"""Other ways to take a client's credits, beside `reserve` and `settle`: one process, one connection, in turns.

Each way does what teams write first, on the same servers in the same minute: PostgreSQL with fsync, Redis with its
append-only file. Ours are two calls, since a hold comes before the work and a charge after it; the clock also counts
what billing makes for them: run id, token, event. Each begins with the task's id, which Celery makes. What an
alternative does not promise stands beside its rate: a faster way that loses money is no faster way.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

import limits
import psycopg
import redis
from limits.storage import RedisStorage
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter, RateLimiter

from benchmarks.bucket_work import CLIENT, PRICE, buckets_on, one_run
from benchmarks.hot_bucket import CALLS, SELECT_THEN_UPDATE, UPDATE, hot_row_rate
from benchmarks.reserve_load import programs, reserve_load
from benchmarks.rows import Row, alternated, alternative
from benchmarks.servers import Servers
from billing.credits.values import ReserveOutcome, SettleOutcome

BLOCK: Final = 50
BLOCKS: Final = 12
BLOCKS_QUICK: Final = 4
CREDITS: Final = 10**9
#: Sessions at once on one row, and connections on one bucket.
SESSIONS: Final = 32
ROUNDS: Final = 3
SECONDS: Final = 2
SECONDS_QUICK: Final = 1
#: One charge in so many finds no credits, where that is looked at.
EMPTY_EVERY: Final = 10

_TWICE: Final = "a task that runs again pays again; no event, so no receipt"
#: The promise that each way does not keep.
LACKS: Final = {
    "UPDATE": f"goes below zero; {_TWICE}; clients of one row wait for each other",
    "SELECT FOR UPDATE": f"{_TWICE}; a death after the charge keeps the credits of failed work",
    "DECR": f"goes below zero; {_TWICE}; no grants, no expiry",
    "DECR and check": f"not safe: between the two others are refused, and a death leaves the credits gone; {_TWICE}",
    "limits, fixed window": "a rate, no credits: nothing is held, given back, bought or shown; twice as much at the "
    "turn of a window; a task that runs again counts again",
    "limits, moving window": "a rate, no credits: nothing is held, given back, bought or shown; one entry of memory "
    "for each credit; a task that runs again counts again",
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """A way to charge the run of a task's id. `LACKS` says what it does not promise."""

    name: str
    label: str
    charge: Callable[[str], object]


def rows(servers: Servers) -> list[Row]:
    """Measure all ways, alone and on one row that many want."""
    blocks = BLOCKS_QUICK if servers.quick else BLOCKS
    client = redis.Redis.from_url(servers.endpoints.redis_url, protocol=2)
    with psycopg.connect(servers.fresh_database("charging"), autocommit=True) as connection:
        connection.execute("CREATE TABLE users (user_id text PRIMARY KEY, credits bigint NOT NULL)")
        connection.execute("INSERT INTO users VALUES (%s, %s)", [CLIENT, CREDITS])
        buckets = buckets_on(client, grants=1)

        def ours(task_id: str) -> None:
            hold, settlement = one_run(task_id)
            held, settled = buckets.reserve(hold), buckets.settle(settlement)
            if held.outcome is not ReserveOutcome.HELD or settled.outcome is not SettleOutcome.SETTLED:
                raise RuntimeError(f"the benchmark's run was not charged: {held}, {settled}")

        ways = [*_in_postgres(connection), *_in_redis(client, servers.endpoints.redis_url)]
        measured = take_turns(ours, ways, blocks)
    client.close()
    servers.drop_database("charging")
    return measured + _on_one_row(servers)


def take_turns(ours: Callable[[str], object], ways: Sequence[Way], blocks: int) -> list[Row]:
    """Return a row for each way: the median of the blocks' ratios, the first of which warms up."""
    seconds: dict[str, list[float]] = {way.label: [] for way in ways}
    mine: list[float] = []
    sides = {"": ours} | {way.label: way.charge for way in ways}
    for number in range(1 + blocks):
        took = {label: _seconds(charge) for label, charge in alternated(sides.items(), number)}
        if number:
            mine.append(took[""])
            for label, of_blocks in seconds.items():
                of_blocks.append(took[label])
    rate = BLOCK / statistics.median(mine)
    return [
        alternative(
            way.name,
            # The quotient is the median of the blocks' quotients, whatever the rates beside it are.
            rate=rate / statistics.median(theirs / own for theirs, own in zip(seconds[way.label], mine, strict=True)),
            ours=rate,
            against="one client, one connection",
            lacks=LACKS[way.label],
            raw={"seconds": seconds[way.label], "seconds_of_ours": mine, "block": BLOCK},
        )
        for way in ways
    ]


def _in_postgres(connection: psycopg.Connection[Any]) -> list[Way]:
    def update(_: str) -> None:
        connection.execute("UPDATE users SET credits = credits - %s WHERE user_id = %s", [PRICE, CLIENT])

    def select_for_update(_: str) -> None:
        with connection.transaction():
            found = connection.execute("SELECT credits FROM users WHERE user_id = %s FOR UPDATE", [CLIENT]).fetchone()
            if found is not None and found[0] >= PRICE:
                connection.execute("UPDATE users SET credits = credits - %s WHERE user_id = %s", [PRICE, CLIENT])

    return [
        Way(name="UPDATE users SET credits = credits - 3", label="UPDATE", charge=update),
        Way(name="SELECT ... FOR UPDATE, then UPDATE", label="SELECT FOR UPDATE", charge=select_for_update),
    ]


def _in_redis(client: redis.Redis, url: str) -> list[Way]:
    client.mset({"plain": CREDITS, "checked": CREDITS, "empty": 0})
    numbers = itertools.count()

    def decrement(_: str) -> None:
        client.decrby("plain", PRICE)

    def decrement_and_check(_: str) -> None:
        key = "checked" if next(numbers) % EMPTY_EVERY else "empty"
        left: Any = client.decrby(key, PRICE)
        if left < 0:
            client.incrby(key, PRICE)

    storage = RedisStorage(url)
    item = limits.RateLimitItemPerMonth(CREDITS)

    def hit(strategy: RateLimiter) -> Callable[[str], object]:
        return lambda _: strategy.hit(item, type(strategy).__name__, CLIENT, cost=PRICE)

    return [
        Way(name=f"DECRBY {PRICE}", label="DECR", charge=decrement),
        Way(
            name=f"DECRBY {PRICE}, then a check (INCRBY where it went below zero: one in {EMPTY_EVERY})",
            label="DECR and check",
            charge=decrement_and_check,
        ),
        Way(name="limits, fixed window", label="limits, fixed window", charge=hit(FixedWindowRateLimiter(storage))),
        Way(name="limits, moving window", label="limits, moving window", charge=hit(MovingWindowRateLimiter(storage))),
    ]


def _on_one_row(servers: Servers) -> list[Row]:
    """Return how many times as many reserves pass one bucket as transactions pass one row."""
    found = programs()
    if found is None:
        return []
    benchmark, pgbench = found
    endpoints = servers.endpoints
    seconds = SECONDS_QUICK if servers.quick else SECONDS
    scripts = {
        "UPDATE": ("UPDATE of one row", UPDATE),
        "SELECT FOR UPDATE": ("SELECT ... FOR UPDATE, then UPDATE of one row", SELECT_THEN_UPDATE),
    }
    mine: list[float] = []
    rates: dict[str, list[float]] = {label: [] for label in scripts}
    how = ""
    for _ in range(1 if servers.quick else ROUNDS):
        mine.append(reserve_load(benchmark, endpoints.redis_url, SESSIONS, 1, CALLS)[0])
        for label, (_, script) in scripts.items():
            rate, how = hot_row_rate(pgbench, endpoints.database_url, SESSIONS, script=script, seconds=seconds)
            rates[label].append(rate)
    ours = statistics.median(mine)
    return [
        alternative(
            f"{name}, {SESSIONS} at once",
            rate=ours / statistics.median(own / theirs for own, theirs in zip(mine, rates[label], strict=True)),
            ours=ours,
            against=f"{how}, against reserve on one bucket",
            lacks=LACKS[label],
            raw={"rates": rates[label], "rates_of_ours": mine},
        )
        for label, (name, _) in scripts.items()
    ]


def _seconds(charge: Callable[[str], object]) -> float:
    task_ids = [str(uuid.uuid4()) for _ in range(BLOCK)]
    started = time.perf_counter()
    for task_id in task_ids:
        charge(task_id)
    return time.perf_counter() - started
