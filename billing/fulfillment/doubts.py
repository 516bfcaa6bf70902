"""The statements of a batch's transaction that answer where bucket and log differ: allotments, returns, postings (L6).

All of it is read and written under the shared locks of the batch's shards, at the epochs that were read under them: a
rebuild sees all of it in `grant_spent`, or none, and then the postings are of its own epoch.
"""

from __future__ import annotations

import collections
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import psycopg

from billing.events.direct import DIRECT_EPOCH
from billing.fulfillment import allotment, log_statements, verdicts
from billing.fulfillment.allotment import GrantLeft
from billing.fulfillment.verdicts import Consequences, Grants, Settled, Sorting
from billing.ledger.grant_terms import bucket_terms

Cursor = psycopg.Cursor[tuple[Any, ...]]


def allot_direct(cursor: Cursor, sorting: Sorting, archived: Collection[uuid.UUID] = ()) -> None:
    """Have the client's grants pay those direct events of a batch that will be new rows; they are replaced in it.

    `archived` are runs that are in the archive: charged as well.
    """
    first = verdicts.first_of_each_run(sorting)
    direct = [event for event in first.values() if event.epoch == DIRECT_EPOCH]
    if not direct:
        return
    cursor.execute(log_statements.READ_SETTLEMENTS, [list(first)], prepare=True)
    there = {run_id for run_id, _, _ in cursor.fetchall()}.union(archived)
    cursor.execute(log_statements.READ_GRANTS_LEFT, [sorted({event.client_id for event in direct})])
    books = grants_left(cursor.fetchall())
    new = [event for event in first.values() if event.run_id not in there]
    allotment.use(books, (event for event in new if event.epoch != DIRECT_EPOCH))
    paid = {id(event): allotment.allot(event, books[event.client_id]) for event in new if event.epoch == DIRECT_EPOCH}
    sorting.events = [(message, paid.get(id(event), event)) for message, event in sorting.events]


def grants_left(rows: Iterable[Sequence[Any]]) -> dict[str, list[GrantLeft]]:
    """Return what `READ_GRANTS_LEFT` answered, by client, in burn order; a client without any has an empty list."""
    books: dict[str, list[GrantLeft]] = collections.defaultdict(list)
    for client_id, grant_id, priority, expires_at, skus, voided_at, left in rows:
        terms = bucket_terms(priority=priority, expires_at=expires_at, skus=skus, voided_at=voided_at)
        books[client_id].append(GrantLeft(grant_id=grant_id, credits=left, terms=terms))
    return books


def post(cursor: Cursor, found: Consequences, epochs: Mapping[str, int]) -> tuple[str, ...]:
    """Write the postings of a batch; return the clients that they are for."""
    totals: dict[str, Grants] = collections.defaultdict(dict, found.taken)
    if found.returned:
        keys = [(run_id, *settled, event.client_id) for (run_id, settled), event in found.returned.items()]
        cursor.execute(log_statements.RETURN_SETTLEMENTS, [list(column) for column in zip(*keys, strict=True)])
        for run_id, settlement_id, epoch in cursor.fetchall():
            event = found.returned[run_id, Settled(settlement_id, epoch)]
            verdicts.add_shares(totals[event.client_id], event, -1)
    rows = [
        (client_id, epochs[client_id], grant_id, credits_, 0)
        for client_id, grants in totals.items()
        for grant_id, credits_ in grants.items()
        if credits_
    ]
    if rows:
        cursor.execute(log_statements.ADD_POSTINGS, [list(column) for column in zip(*rows, strict=True)])
    return tuple(sorted({client_id for client_id, *_ in rows}))
