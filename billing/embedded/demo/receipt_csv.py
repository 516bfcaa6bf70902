"""An itemized receipt as CSV: one row per usage line, streamed, so that a client-month of any size fits in memory.

Guarantee: the file is there whole or not at all (written beside its place, then renamed). Text from outside cannot
become a formula when the file is opened in a spreadsheet: a cell that begins like one gets a leading apostrophe.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import os
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

COLUMNS: Final = (
    "run_id",
    "line",
    "correlation_id",
    "task",
    "sku",
    "quantity",
    "price_version",
    "credits",
    "grants",
    "occurred_at",
)
#: What spreadsheets take for the beginning of a formula, directly or after what they strip.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class UsageRow:
    """One line of the usage history. `grants` says how many credits each grant paid; grant 0 is debt."""

    run_id: str
    line: int
    client_id: str
    correlation_id: str
    task: str
    sku: str
    quantity: int
    price_version: int
    credits: int
    grants: Mapping[int, int]
    occurred_at: datetime


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """A written receipt: where it is, how many lines it has, and what they add up to."""

    path: Path
    lines: int
    credits: int


def write_receipt(path: Path, rows: Iterable[UsageRow]) -> Receipt:
    """Write the receipt of one client to `path`, replacing an older one. Raises `OSError` where it cannot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    lines = credits_ = 0
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for row in rows:
                writer.writerow(cells(row))
                lines += 1
                credits_ += row.credits
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
    return Receipt(path=path, lines=lines, credits=credits_)


def cells(row: UsageRow) -> tuple[str | int, ...]:
    """Return a row's cells. Times are UTC in ISO 8601; grants are `grant:credits`, separated by blanks."""
    return (
        row.run_id,
        row.line,
        safe(row.correlation_id),
        safe(row.task),
        safe(row.sku),
        row.quantity,
        row.price_version,
        row.credits,
        safe(" ".join(f"{grant}:{credits_}" for grant, credits_ in row.grants.items())),
        row.occurred_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    )


def safe(text: str) -> str:
    """Return text that a spreadsheet takes for text."""
    return f"'{text}" if text.startswith(_FORMULA) else text
