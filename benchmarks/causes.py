"""Why a mark is missed, where it is known: the beginning of a row's name, and the cause in a sentence or two.

A cause is written down after it was measured, and stands beside the row only while its mark is missed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final

from benchmarks.rows import Row

CAUSES: Final = {
    "1,000 connections on one bucket": "Not the reserve, but the machine's disk: where it acknowledges a flush at once "
    "(see its time above), the naive UPDATE pays nothing for its commits. On a "
    "disk that takes a millisecond for a flush, one row takes a thousand commits a second at most.",
    "32 connections on one bucket": "As with 1,000 connections: a free flush makes the naive UPDATE's commits free.",
    "empty BillableTask": "Two round trips to Redis, and in confirm a publish that the broker confirms, beside an "
    "unbilled task that has none. Counted in relay mode: 800 calls of Python and its builtins more than the unbilled "
    "task's 1,430; billing's own functions are 166 of them, redis-py's 179, the rest is what these call.",
}
UNKNOWN: Final = "not known yet"


def explained(rows: Iterable[Row]) -> list[Row]:
    """Return the rows, those that miss their mark with its cause."""
    return [dataclasses.replace(row, cause=_cause(row.name)) if row.met is False else row for row in rows]


def _cause(name: str) -> str:
    return next((cause for begins, cause in CAUSES.items() if name.startswith(begins)), UNKNOWN)
