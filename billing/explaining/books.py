"""Reads what PostgreSQL has of one task: its lines, who paid, their increments, parked rows, dead letters.

Lines are found by their index. Parked tasks and dead letters know a task by a column or by bytes without one, so that
only the newest of them are looked at (L9), and the story says so where there are more.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, text

from billing.admin.receipt_line import ReceiptLine
from billing.admin.receipts import receipt
from billing.connections import postgres
from billing.explaining.evidence import Books, Grant, Letter, Line, Parked, Sent
from billing.sinks.sync.postgres.rows import COLUMNS, increment_of
from billing.sinks.sync.telling.next_step import next_step
from billing.task.runtime import Runtime

#: L9: lines, parked tasks and letters of one task that are shown; parked tasks and letters that are looked at.
SHOWN_MAX: Final = 200
PARKED_LOOKED_AT: Final = 20_000
LETTERS_LOOKED_AT: Final = 10_000
#: Clients whose receipts are read for one task id.
CLIENTS_MAX: Final = 10

_COLUMNS: Final = """
run_id, line, settlement_id, client_id, correlation_id, task, attempt, sku, quantity, credits, grants, price_version,
late, submitted_at, occurred_at, recorded_at, corrects, mode
"""
_OF_TASK: Final = text(f"""
SELECT {_COLUMNS} FROM usage_ever WHERE correlation_id = :task_id ORDER BY occurred_at, run_id, line LIMIT :most
""")  # noqa: S608 - columns of our own
_TASK_OF_RUN: Final = text("SELECT correlation_id FROM usage_ever WHERE run_id = :run_id LIMIT 1")
_GRANTS: Final = text("""
SELECT grant_id, kind, credits, coalesce(key, '') AS key, created_at FROM credit_grant WHERE grant_id = ANY(:ids)
""")
_INCREMENTS: Final = text(f"SELECT {COLUMNS} FROM stripe_increment WHERE increment_id = ANY(:ids)")  # noqa: S608
_LINKED: Final = text("SELECT client_id FROM stripe_customer WHERE client_id = ANY(:ids)")
_PARKED_COLUMNS: Final = ", ".join(field.name for field in dataclasses.fields(Parked))
#: Of the runs that are known, and of the newest rows those of the task.
_PARKED: Final = text(f"""
SELECT {_PARKED_COLUMNS} FROM parked_task WHERE run_id = ANY(:run_ids)
UNION
SELECT {_PARKED_COLUMNS} FROM (SELECT * FROM parked_task ORDER BY parked_id DESC LIMIT :looked_at) AS newest
WHERE task_id = :task_id
ORDER BY parked_id LIMIT :most
""")  # noqa: S608
_MORE_PARKED: Final = text("SELECT EXISTS (SELECT FROM parked_task ORDER BY parked_id DESC OFFSET :looked_at LIMIT 1)")
_LETTERS: Final = text("""
SELECT letter_id, reason, state, received_at, ended_at, remark
FROM (SELECT * FROM dead_letter ORDER BY letter_id DESC LIMIT :looked_at) AS newest
WHERE position(CAST(:named AS bytea) IN body) > 0
ORDER BY letter_id LIMIT :most
""")
_MORE_LETTERS: Final = text("SELECT EXISTS (SELECT FROM dead_letter ORDER BY letter_id DESC OFFSET :looked_at LIMIT 1)")


def read_books(runtime: Runtime, task_id: str, run_id: uuid.UUID | None, now: datetime) -> Books:
    """Return the lines of a task, or of the run that was asked for by its own id, and where their money is.

    Raises `Unreachable`, `NotMigrated`, `NotAllowed`, as all do here.
    """
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        lines = _lines(connection, task_id, run_id)
        reported = _reported(runtime, lines)
        lines = tuple(_with_report(line, reported.get((line.run_id, line.line))) for line in lines)
        clients = sorted({line.client_id for line in lines})
        return Books(
            lines=lines,
            grants=_grants(connection, {grant for line in lines for grant in line.grants}),
            sent=_sent(connection, {part.increment_id for line in lines for part in line.reported}, now),
            linked=frozenset(connection.execute(_LINKED, {"ids": clients}).scalars()),
        )


def read_parked(runtime: Runtime, task_id: str, run_ids: Iterable[uuid.UUID]) -> tuple[tuple[Parked, ...], str]:
    """Return the parked tasks of some runs and of a task, and what was not looked at, in words."""
    given = {"task_id": task_id, "run_ids": sorted(run_ids), "looked_at": PARKED_LOOKED_AT, "most": SHOWN_MAX}
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        found = tuple(Parked(**row) for row in connection.execute(_PARKED, given).mappings())
        more = connection.execute(_MORE_PARKED, {"looked_at": PARKED_LOOKED_AT}).scalar_one()
    return found, f"of the parked tasks, only the newest {PARKED_LOOKED_AT:,} were looked at" if more else ""


def read_letters(runtime: Runtime, named: bytes) -> tuple[tuple[Letter, ...], str]:
    """Return the dead letters whose body has an id as JSON has it, and what was not looked at, in words.

    A login that may not see the bodies, as a reader's, is told so.
    """
    given = {"named": named, "looked_at": LETTERS_LOOKED_AT, "most": SHOWN_MAX}
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        found = tuple(Letter(**row) for row in connection.execute(_LETTERS, given).mappings())
        more = connection.execute(_MORE_LETTERS, {"looked_at": LETTERS_LOOKED_AT}).scalar_one()
    return found, f"of the dead letters, only the newest {LETTERS_LOOKED_AT:,} were looked at" if more else ""


def _lines(connection: Connection, task_id: str, run_id: uuid.UUID | None) -> tuple[Line, ...]:
    """Return the lines of a task, or those of one run of it, each with its corrections."""
    of_task = _lines_of(connection, task_id)
    if of_task or run_id is None:
        return of_task
    named = connection.execute(_TASK_OF_RUN, {"run_id": run_id}).scalar_one_or_none()
    found = () if named is None else _lines_of(connection, named)
    return tuple(line for line in found if run_id in (line.run_id, line.corrects))


def _lines_of(connection: Connection, task_id: str) -> tuple[Line, ...]:
    rows = connection.execute(_OF_TASK, {"task_id": task_id, "most": SHOWN_MAX}).mappings()
    return tuple(Line(**{**row, "grants": _shares(row["grants"])}) for row in rows)


def _shares(grants: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    shares: dict[int, int] = {}
    for share in grants:
        shares[int(share["grant"])] = shares.get(int(share["grant"]), 0) + int(share["credits"])
    return shares


def _reported(runtime: Runtime, lines: Sequence[Line]) -> dict[tuple[uuid.UUID, int], ReceiptLine]:
    """Return the lines as receipts have them: with the increments that carry them."""
    asked = sorted({(line.client_id, line.correlation_id) for line in lines})[:CLIENTS_MAX]
    return {
        (line.run_id, line.line): line
        for client_id, task_id in asked
        for line in receipt(runtime.settings, client_id, correlation_id=task_id)
    }


def _with_report(line: Line, found: ReceiptLine | None) -> Line:
    return line if found is None else dataclasses.replace(line, reported=found.reported, reason=found.reason)


def _grants(connection: Connection, ids: Iterable[int]) -> dict[int, Grant]:
    rows = connection.execute(_GRANTS, {"ids": sorted(ids)}).mappings()
    return {row["grant_id"]: Grant(**row) for row in rows}


def _sent(connection: Connection, ids: Iterable[int], now: datetime) -> dict[int, Sent]:
    found = [increment_of(row) for row in connection.execute(_INCREMENTS, {"ids": sorted(ids)}).mappings()]
    return {each.increment_id: Sent(increment=each, next=next_step(each, now)) for each in found}
