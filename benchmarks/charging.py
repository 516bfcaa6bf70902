"""Other ways to take a client's credits, beside `reserve` and `settle`: one process, one connection, in turns.

Each way does what teams write first, on the same servers in the same minute: PostgreSQL with fsync, Redis with its
append-only file. Ours are two calls, since a hold comes before the work and a charge after it. What an alternative does
not promise stands beside its rate: a faster way that loses money is no faster way.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import limits
import psycopg
import redis
from limits.storage import RedisStorage
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter, RateLimiter

from benchmarks.bucket_work import CLIENT, PRICE, Work, buckets_on, some_work
from benchmarks.hot_bucket import CALLS, SELECT_THEN_UPDATE, UPDATE, hot_row_rate
from benchmarks.reserve_load import programs, reserve_load
from benchmarks.rows import Row, alternative
from benchmarks.servers import Servers
from billing.credits.values import ReserveOutcome, SettleOutcome

BLOCK: Final = 50
BLOCKS: Final = 12
BLOCKS_QUICK: Final = 4
CREDITS: Final = 10**9
#: Sessions at once on one row, and connections on one bucket.
SESSIONS: Final = 32
SECONDS: Final = 6
SECONDS_QUICK: Final = 3

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
    """A way to charge one run. `LACKS` says what it does not promise."""

    name: str
    label: str
    charge: Callable[[Work], object]


def rows(servers: Servers) -> list[Row]:
    """Measure all ways, alone and on one row that many want."""
    blocks = BLOCKS_QUICK if servers.quick else BLOCKS
    client = redis.Redis.from_url(servers.endpoints.redis_url, protocol=2)
    with psycopg.connect(servers.fresh_database("charging"), autocommit=True) as connection:
        connection.execute("CREATE TABLE users (user_id text PRIMARY KEY, credits bigint NOT NULL)")
        connection.execute("INSERT INTO users VALUES (%s, %s)", [CLIENT, CREDITS])
        buckets = buckets_on(client, grants=1)

        def ours(work: Work) -> None:
            hold, settlement = work
            held, settled = buckets.reserve(hold), buckets.settle(settlement)
            if held.outcome is not ReserveOutcome.HELD or settled.outcome is not SettleOutcome.SETTLED:
                raise RuntimeError(f"the benchmark's run was not charged: {held}, {settled}")

        ways = [*_in_postgres(connection), *_in_redis(client, servers.endpoints.redis_url)]
        measured = take_turns(ours, ways, blocks)
    client.close()
    servers.drop_database("charging")
    return measured + _on_one_row(servers)


def take_turns(ours: Callable[[Work], object], ways: Sequence[Way], blocks: int) -> list[Row]:
    """Return a row for each way: the median of the blocks' ratios, the first of which warms up."""
    seconds: dict[str, list[float]] = {way.label: [] for way in ways}
    mine: list[float] = []
    for number in range(1 + blocks):
        took = {way.label: _seconds(way.charge) for way in ways}
        took_mine = _seconds(ours)
        if number:
            mine.append(took_mine)
            for label, value in took.items():
                seconds[label].append(value)
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
    def update(_: Work) -> None:
        connection.execute("UPDATE users SET credits = credits - %s WHERE user_id = %s", [PRICE, CLIENT])

    def select_for_update(_: Work) -> None:
        with connection.transaction():
            found = connection.execute("SELECT credits FROM users WHERE user_id = %s FOR UPDATE", [CLIENT]).fetchone()
            if found is not None and found[0] >= PRICE:
                connection.execute("UPDATE users SET credits = credits - %s WHERE user_id = %s", [PRICE, CLIENT])

    return [
        Way(name="UPDATE users SET credits = credits - 1", label="UPDATE", charge=update),
        Way(name="SELECT ... FOR UPDATE, then UPDATE", label="SELECT FOR UPDATE", charge=select_for_update),
    ]


def _in_redis(client: redis.Redis, url: str) -> list[Way]:
    client.set("plain", CREDITS)

    def decrement(_: Work) -> None:
        client.decrby("plain", PRICE)

    def decrement_and_check(_: Work) -> None:
        left: Any = client.decrby("plain", PRICE)
        if left < 0:
            client.incrby("plain", PRICE)

    storage = RedisStorage(url)
    item = limits.RateLimitItemPerMonth(CREDITS)

    def hit(strategy: RateLimiter) -> Callable[[Work], object]:
        return lambda _: strategy.hit(item, type(strategy).__name__, CLIENT, cost=PRICE)

    return [
        Way(name="DECR", label="DECR", charge=decrement),
        Way(
            name="DECR, then a check (INCR where it went below zero)",
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
    seconds = SECONDS_QUICK if servers.quick else SECONDS
    ours = reserve_load(benchmark, servers.endpoints.redis_url, SESSIONS, 1, CALLS)[0]
    measured = []
    for name, label, script in (
        ("UPDATE of one row", "UPDATE", UPDATE),
        ("SELECT ... FOR UPDATE, then UPDATE of one row", "SELECT FOR UPDATE", SELECT_THEN_UPDATE),
    ):
        rate, how = hot_row_rate(pgbench, servers.endpoints.database_url, SESSIONS, script=script, seconds=seconds)
        measured.append(
            alternative(
                f"{name}, {SESSIONS} at once",
                rate=rate,
                ours=ours,
                against=f"{how}, against reserve on one bucket",
                lacks=LACKS[label],
                raw={},
            )
        )
    return measured


def _seconds(charge: Callable[[Work], object]) -> float:
    work = some_work(BLOCK)
    started = time.perf_counter()
    for one in work:
        charge(one)
    return time.perf_counter() - started
