"""What a fleet of many connections gets of one Redis: the rate of reserves and the wait of the slowest hundredth.

`redis-benchmark` holds 1 to 1,000 connections, on the bucket of one client and on ten clients' at once; the numbers of
connections take turns. Redis serves one command at a time, so more connections wait longer for the same rate; what must
not be is that one bucket is worse than many, as one row of a table is.
"""

from __future__ import annotations

from typing import Final

from benchmarks.reserve_load import programs, reserve_load
from benchmarks.rows import Row, alternated, growth
from benchmarks.servers import Servers

CONNECTIONS: Final = (1, 10, 100, 1_000)
#: Clients of the case with many buckets: each has a redis-benchmark of its own.
MANY: Final = 10
CALLS: Final = 30_000
CALLS_QUICK: Final = 10_000
#: One connection waits for each answer: fewer calls take as long.
CALLS_OF_ONE: Final = 10_000
ROUNDS: Final = 3


def connection_rows(servers: Servers) -> list[Row]:
    """Return rate and p99 by connections, on one bucket and on many; nothing without redis-benchmark."""
    found = programs()
    if found is None:
        return []
    measured = []
    for name, clients in (("one bucket", 1), (f"{MANY} buckets", MANY)):
        rates: dict[int, list[float]] = {number: [] for number in CONNECTIONS if number >= clients}
        waits: dict[int, list[float]] = {number: [] for number in rates}
        for number in range(1 if servers.quick else ROUNDS):
            for connections in alternated(rates, number):
                calls = CALLS_OF_ONE if connections == 1 else CALLS_QUICK if servers.quick else CALLS
                rate, wait = reserve_load(found[0], servers.endpoints.redis_url, connections, clients, calls)
                rates[connections].append(rate)
                waits[connections].append(wait)
        title = f"reserve on {name}, by connections"
        measured += [
            growth(
                title, sizes="connections", unit="rate", against="reserves/s, redis-benchmark", figures=rates.items()
            ),
            growth(title, sizes="connections", unit="p99", against="ms, redis-benchmark", figures=waits.items()),
        ]
    return measured
