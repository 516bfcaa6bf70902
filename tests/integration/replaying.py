"""Replays for tests: a file, the fleet under test, and what its books say afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console

from billing.workload.layout import Layout
from billing.workload.price_list import PriceOptions, read_prices
from billing.workload.progress import Steps
from billing.workload.recording import look_at
from billing.workload.replay import Outcome, Plan, Replay
from billing.workload.row_task import ROW_TASK
from tests.fleet.harness import ROOT, Fleet

APP = "tests.fleet.worker:app"


def replay(fleet: Fleet, file: Path, *, grant: int = 1_000, price: tuple[str, ...] = (), **layout: Any) -> Outcome:
    """Replay a file through the fleet, in this process."""
    prices: PriceOptions = read_prices(price)
    plan = Plan(recording=look_at(file, Layout(**layout)), grant=grant, prices=prices)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        return Replay(fleet.settings, fleet.app, plan, Steps(Console(file=nowhere))).run()


def command(fleet: Fleet, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start `billing replay …` in a process of its own, on the servers and with the app of the fleet."""
    return subprocess.Popen(
        [sys.executable, "-m", "billing.cli.main", "-A", APP, "replay", *arguments],
        env={**os.environ, **fleet._environment, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment},
        cwd=fleet.directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def charged(fleet: Fleet, task: str = ROW_TASK) -> Counter[str]:
    """Return how many runs of recorded rows the log has per client. Every run has one line."""
    query = b"SELECT client_id, count(*), count(DISTINCT run_id) FROM usage_history WHERE task = %s GROUP BY 1"
    with psycopg.connect(fleet.settings.database_url) as connection:
        found = connection.execute(query, [task]).fetchall()
    assert all(lines == runs for _, lines, runs in found)
    return Counter({client_id: lines for client_id, lines, _ in found})


def endings(fleet: Fleet) -> Mapping[str, int]:
    """Return how many stored results there are of each state."""
    backend: Any = fleet.app.backend
    keys = list(backend.client.scan_iter("celery-task-meta-*"))
    return Counter(backend.decode_result(stored)["status"] for stored in backend.client.mget(keys)) if keys else {}
