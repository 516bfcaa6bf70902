"""A thousand connections on one bucket against a thousand sessions on one row: what the design is for.

`redis-benchmark` calls `reserve` on one client's bucket; `pgbench` runs the naive `UPDATE` on one row, with fsync and
synchronous_commit on. They take turns, and the row is the median of the rounds' ratios. Either program missing, the row
says so.
"""

from __future__ import annotations

import re
import statistics
import subprocess
from typing import Final
from urllib.parse import urlsplit

import psycopg

from benchmarks.reserve_load import programs, reserve_load
from benchmarks.rows import Row

CALLS: Final = 100_000
ROUNDS: Final = 3
SECONDS: Final = 3
SECONDS_QUICK: Final = 2
#: Sessions that the server must have beside those of pgbench: superusers', and whoever looks.
SPARE_SESSIONS: Final = 10
#: Who pgbench is.
ROLE: Final = "benchmark_pgbench"
SCRAM_ITERATIONS_SINCE: Final = 160_000
#: How many sessions connect in a second, at least, and how often pgbench is given twice the time where they did not.
SESSIONS_A_SECOND: Final = 200
TRIES: Final = 4
MARKS: Final = {1_000: 50.0, 32: 10.0}

UPDATE: Final = "UPDATE benchmark_users SET credits = credits - 1 WHERE user_id = 1;"
_SELECT: Final = "SELECT credits FROM benchmark_users WHERE user_id = 1 FOR UPDATE;"
SELECT_THEN_UPDATE: Final = f"BEGIN;\n{_SELECT}\n{UPDATE}\nCOMMIT;"

_TPS: Final = re.compile(r"tps = ([\d.]+)")


def hot_bucket_rows(redis_url: str, postgres_url: str, *, quick: bool) -> list[Row]:
    """Return one row per concurrency."""
    found = programs()
    rows = []
    for connections, mark in MARKS.items():
        name = f"{connections:,} connections on one bucket, reserve"
        if found is None:
            against = "not measured: redis-benchmark or pgbench not installed"
            rows.append(Row(name=name, value=0.0, unit="x the rate", against=against, mark=mark, met=None))
            continue
        benchmark, pgbench = found
        seconds = SECONDS_QUICK if quick else SECONDS
        ours, naive, how = [], [], ""
        for _ in range(1 if quick else ROUNDS):
            ours.append(reserve_load(benchmark, redis_url, connections, 1, CALLS)[0])
            rate, how = hot_row_rate(pgbench, postgres_url, connections, script=UPDATE, seconds=seconds)
            naive.append(rate)
        ratio = statistics.median(own / theirs for own, theirs in zip(ours, naive, strict=True))
        rates = f"{statistics.median(naive):,.0f}/s (reserve: {statistics.median(ours):,.0f}/s)"
        rows.append(
            Row(
                name=name,
                value=ratio,
                unit="x the rate",
                against=f"UPDATE of one row, {how}: {rates}",
                mark=mark,
                met=ratio >= mark,
                raw={"rates": ours, "rates_of_the_row": naive},
            )
        )
    return rows


def hot_row_rate(program: str, postgres_url: str, connections: int, *, script: str, seconds: int) -> tuple[float, str]:
    """Return transactions per second on one row, and how: by as many sessions as the server admits."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS benchmark_users")
        connection.execute("CREATE TABLE benchmark_users (user_id int PRIMARY KEY, credits bigint NOT NULL)")
        connection.execute("INSERT INTO benchmark_users VALUES (1, 1000000000000)")
        _add_role(connection)
        sessions = min(connections, int(_show(connection, "max_connections")) - SPARE_SESSIONS)
        how = f"{sessions:,} sessions, fsync {_show(connection, 'fsync')}"
    # The time that pgbench is given begins before its sessions connect; its rate does not count that part.
    limit = seconds + sessions // SESSIONS_A_SECOND
    for _ in range(TRIES):
        rate = _tps(program, postgres_url, sessions, script=script, seconds=limit)
        if rate is not None:
            break
        limit *= 2
    else:
        raise RuntimeError(f"pgbench: no transaction was made in {limit // 2} s by {sessions} sessions")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DROP TABLE benchmark_users")
    return rate, how


def _tps(program: str, postgres_url: str, sessions: int, *, script: str, seconds: int) -> float | None:
    """Return transactions per second; None where none was made in time."""
    parts = urlsplit(postgres_url)
    url = parts._replace(netloc=f"{ROLE}:{ROLE}@{parts.hostname}:{parts.port}").geturl()
    arguments = ["-n", "-c", str(sessions), "-j", "2", "-T", str(seconds), "-f", "-", url]
    done = subprocess.run(
        [program, *arguments],
        input=script,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    rates = _TPS.findall(done.stdout)
    return float(rates[-1]) if rates else None


def _add_role(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Add a role of the throw-away server whose password is quickly checked: a thousand sessions connect at once."""
    if connection.info.server_version >= SCRAM_ITERATIONS_SINCE:
        connection.execute("SET scram_iterations = 1")
    connection.execute(f"DROP ROLE IF EXISTS {ROLE}".encode())
    connection.execute(f"CREATE ROLE {ROLE} LOGIN SUPERUSER PASSWORD '{ROLE}'".encode())


def _show(connection: psycopg.Connection[tuple[object, ...]], setting: str) -> str:
    row = connection.execute("SELECT current_setting(%s)", [setting]).fetchone()
    return str(row[0]) if row else ""
