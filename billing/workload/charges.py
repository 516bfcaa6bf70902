"""Reads what the usage history has of a recorded workload, and keeps when it was first started.

Every run id of a workload begins with the same 48 time bits, and no other workload's does: its charges are those of
the row task in one range of the history's key, counted and summed in PostgreSQL.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import psycopg

from billing.core.errors import Retryable
from billing.workload.identity import Identity
from billing.workload.row_task import ROW_TASK

#: An instant that another workload has taken is given up for the next millisecond, at most so often (L9).
_TRIES: Final = 50

_START: Final = """
    -- the workload's own instant, to the millisecond, which no other workload has
    INSERT INTO recorded_workload (digest, name, started_at)
    VALUES (%s, %s, date_trunc('milliseconds', clock_timestamp()))
    ON CONFLICT DO NOTHING
"""
_STARTED: Final = "SELECT started_at FROM recorded_workload WHERE digest = %s"
_FINISH: Final = "UPDATE recorded_workload SET finished_at = now() WHERE digest = %s"
_CHARGES: Final = """
    -- per client: the runs of one workload, what they come to, and lines that no price known to their run explains
    SELECT client_id,
           count(*) FILTER (WHERE line = 0),
           sum(quantity)::bigint,
           sum(credits)::bigint,
           count(*) FILTER (WHERE NOT EXISTS (
               SELECT FROM price
               WHERE price.sku = usage_ever.sku AND price.version <= usage_ever.price_version
                 AND price.credits_per_unit * usage_ever.quantity = usage_ever.credits
           )),
           coalesce(sum(('x' || right(run_id::text, 8))::bit(32)::bigint) FILTER (WHERE line = 0), 0)::bigint
    FROM usage_ever
    WHERE run_id >= %s AND run_id < %s AND task = %s AND corrects IS NULL
    GROUP BY client_id
"""
_COUNT: Final = """
    -- the runs of one workload; a task of another kind may have begun in the same millisecond
    SELECT count(*) FROM usage_ever WHERE run_id >= %s AND run_id < %s AND task = %s AND line = 0
"""
_LOGGED: Final = "SELECT run_id FROM usage_ever WHERE run_id = ANY(%s) AND line = 0"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Charges:
    """What the log charged one client for rows of one workload. `fingerprint` sums up which runs they are.

    `mispriced` are lines whose credits are their quantity at no price that the book had for their run.
    """

    runs: int = 0
    quantity: int = 0
    credits: int = 0
    mispriced: int = 0
    fingerprint: int = 0


Connection = psycopg.Connection[tuple[Any, ...]]


def start(connection: Connection, digest: str, name: str) -> tuple[Identity, bool]:
    """Return the workload's identity with whether it is new. The caller commits."""
    for _ in range(_TRIES):
        new = connection.execute(_START, [digest, name]).rowcount == 1
        found = connection.execute(_STARTED, [digest]).fetchone()
        if found is not None:
            return Identity(digest=digest, started_at=found[0]), new
    raise Retryable(f"recorded_workload: {name!r}: no free instant was found; try again")


def finish(connection: Connection, digest: str) -> None:
    """Note that every row was accounted for."""
    connection.execute(_FINISH, [digest])


def charges_of(connection: Connection, identity: Identity) -> dict[str, Charges]:
    """Return what the log charged each client for this workload."""
    rows = connection.execute(_CHARGES, [*identity.run_ids, ROW_TASK])
    return {
        client_id: Charges(runs=runs, quantity=quantity, credits=credits_, mispriced=mispriced, fingerprint=fingerprint)
        for client_id, runs, quantity, credits_, mispriced, fingerprint in rows
    }


def count_of(connection: Connection, identity: Identity) -> int:
    """Return how many runs of this workload the log has."""
    row = connection.execute(_COUNT, [*identity.run_ids, ROW_TASK]).fetchone()
    return int(row[0]) if row is not None else 0


def logged(connection: Connection, run_ids: Sequence[UUID]) -> set[UUID]:
    """Return which of some runs the log has. The caller bounds their number."""
    return {row[0] for row in connection.execute(_LOGGED, [list(run_ids)])}
