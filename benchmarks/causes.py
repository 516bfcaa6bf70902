"""Why a mark is missed, where it is known: the beginning of a row's name, and the cause in a few sentences.

A cause is written down after it was measured, and stands beside the row only while its mark is missed. What of it was
not measured, it says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final

from benchmarks.rows import Row

#: How, where and when: whoever finds another cause says so here.
FOUND: Final = (
    "A cause is what was found by timing and counting the parts on two cores, on 2026-11-23, in runs of its own."
)
_FAST_DISK: Final = (
    "The other side is fast here: this machine's disk acknowledges a flush within microseconds (see above), so that "
    "the naive UPDATE hardly pays for its commits. Where a flush takes a millisecond, one row takes a thousand commits "
    "a second at most; such a disk was not at hand."
)
CAUSES: Final = {
    "1,000 connections on one bucket": _FAST_DISK,
    "32 connections on one bucket": _FAST_DISK,
    "reserve, one connection": "A script that does nothing is 1.4 x. The 8 µs beyond it are the script's own work: for "
    "the trust of the shard, the grants, the hold, its lease and the bucket (14 µs for the whole call in the server).",
    "consumer, RabbitMQ": "Two cores for a receiving thread, a writing thread, PostgreSQL and RabbitMQ. Receiving "
    "takes 28 µs of CPU an event, 1 more than with no work; writing it 12 and what PostgreSQL takes. Both go on at "
    "once, at 63 µs an event, and the writing, which alone takes 30, takes 55 of them. How much of that each of the "
    "others costs it is not known; a shorter switch interval of Python's threads changed nothing.",
    "what the last nine tenths": "It settles some 7 MB higher within seconds of the moment when reconciliation first "
    "judges what it has found (billing_reconcile_wait_seconds after the start). Of 1,200,000 events (MEMORY_EVENTS) "
    "the last 300,000 added 0.2 MB.",
    "BillableTask that waits": "Two round trips to Redis, and in confirm a publish, by processes that have slept: a "
    "DECR alone takes 0.2 to 0.3 ms after a wait of 20 ms, and 0.02 ms in a loop. Timed within a child: 20.4 ms the "
    "task unbilled; 22.0 in relay, of which 1.1 are the two calls and 0.1 makes the run ready; 23.8 in confirm, of "
    "which 1.4 are the two calls and 1.4 the confirmed publish. The rest is Python around them, and was not divided.",
    "empty BillableTask": "Two round trips to Redis, and in confirm a publish that the broker confirms, beside an "
    "unbilled task that has none. In relay mode 800 calls of Python and its builtins were counted beyond the unbilled "
    "task's 1,430, when billing's own functions were 166 of them (193 now: tests/cost/recorded.toml) and redis-py's "
    "179; the rest is what these call.",
}
UNKNOWN: Final = "not known yet"


def explained(rows: Iterable[Row]) -> list[Row]:
    """Return the rows, those that miss their mark with its cause."""
    return [dataclasses.replace(row, cause=_cause(row.name)) if row.met is False else row for row in rows]


def _cause(name: str) -> str:
    return next((cause for begins, cause in CAUSES.items() if name.startswith(begins)), UNKNOWN)
