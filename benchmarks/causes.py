"""Why a mark is missed, where it is known: the beginning of a row's name, and the cause in a sentence or two.

A cause is written down after it was measured, and stands beside the row only while its mark is missed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final

from benchmarks.rows import Row

_FREE_FLUSH: Final = (
    "Not the reserve, but the machine's disk: where it acknowledges a flush at once (see its time above), the naive "
    "UPDATE pays nothing for its commits. On a disk that takes a millisecond for a flush, one row takes a thousand "
    "commits a second at most."
)
CAUSES: Final = {
    "1,000 connections on one bucket": _FREE_FLUSH,
    "32 connections on one bucket": _FREE_FLUSH,
    "reserve, one connection": "A script that does nothing is 1.4 x here. What remains is the work of one reserve in "
    "the server: 14 µs of INFO commandstats, for the trust of the shard, the grants, the hold, its lease and the "
    "bucket.",
    "consumer, RabbitMQ": "Two cores for a receiving thread, a writing thread, PostgreSQL and RabbitMQ. Receiving "
    "takes 28 µs of CPU an event, 1 more than with no work; writing it 12 and what PostgreSQL takes. Both go on at "
    "once, and a batch that is written in 30 µs an event alone takes 55 beside the others.",
    "what the last nine tenths": "One step of some 7 MB, thirty seconds after the start, when reconciliation first "
    "judges what it has found (billing_reconcile_wait_seconds); nothing grows with the events: of 1,200,000 the last "
    "300,000 added 0.2 MB.",
    "BillableTask that waits": "Two round trips to Redis, and in confirm a publish, by processes that have slept: a "
    "DECR alone takes 0.2 to 0.3 ms after a wait of 20 ms, and 0.02 ms in a loop. Timed within a child: 20.4 ms the "
    "task unbilled, 22.0 in relay (1.1 of them in Redis, 0.1 to prepare the run), 23.8 in confirm (1.1 of them for the "
    "confirmed publish).",
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
