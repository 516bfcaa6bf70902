"""Runs of months that retention has moved to the archive: an old id is as unique as a new one (L3).

A run that the archive has is a duplicate, and its second settlement means for the bucket what it always means (L6). A
run of an archived month that the archive has not can be no row: it is a dead letter that names the month, so that it
delays nobody (L10). A run whose month is in neither place stays in the batch, which then waits: nothing is lost.
"""

from __future__ import annotations

import uuid
from typing import Any

import psycopg

from billing.events.usage_event import UsageEvent
from billing.fulfillment import log_statements
from billing.fulfillment.delivery import Delivered
from billing.fulfillment.verdicts import Settled, Sorting
from billing.schema.months import Partition, Places


def look_up(cursor: psycopg.Cursor[tuple[Any, ...]], sorting: Sorting) -> dict[uuid.UUID, Settled]:
    """Return what the archive has of the batch's runs; move those that it should have, and has not, to the letters.

    No month is moved before the transaction ends.
    """
    cursor.execute(log_statements.KEEP_MONTHS)
    cursor.execute(log_statements.READ_PLACES)
    places = Places(
        Partition(name=name, schema=schema, place=place, first_id=first_id, end_id=end_id)
        for name, schema, place, first_id, end_id in cursor.fetchall()
    )
    months: dict[uuid.UUID, str] = {}
    for _, event in sorting.events:
        found = places.of(event.run_id)
        if found is not None and found.place == "archive":
            months[event.run_id] = found.month
    if not months:
        return {}
    cursor.execute(log_statements.READ_ARCHIVED, [list(months)])
    stored = {run_id: Settled(settlement_id, epoch) for run_id, settlement_id, epoch in cursor.fetchall()}
    kept: list[tuple[Delivered, UsageEvent]] = []
    for message, event in sorting.events:
        if event.run_id in months and event.run_id not in stored:
            month = months[event.run_id]
            reason = f"run_id: '{event.run_id}': is not in its month, {month}, which is archived"
            sorting.letters.append((message, f"{reason} (see: billing partitions attach {month})"))
        else:
            kept.append((message, event))
    sorting.events = kept
    return stored
