"""Reads PostgreSQL's side of a slice of clients, all of it in one snapshot: log, sums and increments of one instant."""

from __future__ import annotations

import collections
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import psycopg
import sqlalchemy
from sqlalchemy import ARRAY, BigInteger, Connection, Row, Text, bindparam, text

from billing.connections import postgres
from billing.core.errors import Retryable, Unreachable
from billing.core.settings import Settings
from billing.credits.posting import Posted
from billing.reconciliation import invoice_queries, queries
from billing.reconciliation.facts import (
    BrokenRun,
    Charged,
    DifferingIncrement,
    GrantFacts,
    InvoiceFacts,
    LedgerFacts,
    LogFacts,
    PlannedRow,
    RollupRow,
    UnpaidLine,
)
from billing.reconciliation.report import ROWS_MAX

Rows = Sequence[Row[*tuple[Any, ...]]]


class TooLong(Retryable):
    """A statement went over its bound: fewer clients at once may do."""


@contextmanager
def snapshot(settings: Settings, engine: sqlalchemy.Engine) -> Iterator[Connection]:
    """Open a transaction that sees one instant and writes nothing; it lasts for one slice. Raises `TooLong`."""
    try:
        with (
            postgres.reaching(settings),
            engine.connect().execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            ) as connection,
        ):
            yield connection
    except Unreachable as error:
        if isinstance(getattr(error.__cause__, "orig", None), psycopg.errors.QueryCanceled):
            raise TooLong(str(error)) from error
        raise


def page(connection: Connection, *, after: str, limit: int, only: Sequence[str] | None) -> list[str]:
    """Return the next clients in the order of their ids."""
    query = text(queries.PAGE).bindparams(bindparam("only", type_=ARRAY(Text)))
    found = connection.execute(query, {"after": after, "limit": limit, "only": None if only is None else list(only)})
    return list(found.scalars())


def ledger_facts(connection: Connection, since_ms: Mapping[str, int]) -> dict[str, LedgerFacts]:
    """Return what the bucket of each client should have; `since_ms`: when it was first read, by Redis' clock."""
    ids = list(since_ms)
    grants: dict[str, dict[int, GrantFacts]] = collections.defaultdict(dict)
    for row in _rows(connection, queries.GRANTS, ids):
        grants[row.client_id][row.grant_id] = GrantFacts(
            credits=row.credits,
            applied=bool(row.applied),
            entries=row.entries,
            entered=row.entered,
            ended=row.ended,
        )
    spent = _per_grant(_rows(connection, queries.SPENT, ids))
    posted: dict[str, dict[int, Posted]] = collections.defaultdict(dict)
    for row in _rows(connection, queries.POSTINGS, ids):
        told = Posted(version=row.version, credits=row.credits, restored=row.restored)
        posted[row.client_id][row.grant_id] = told
    tails: dict[str, dict[tuple[int, int], dict[int, int]]] = collections.defaultdict(dict)
    tail = text(queries.TAIL).bindparams(
        bindparam("ids", type_=ARRAY(Text)), bindparam("since", type_=ARRAY(BigInteger))
    )
    for row in connection.execute(tail, {"ids": ids, "since": list(since_ms.values())}):
        tails[row.client_id].setdefault((row.at_ms, row.epoch), {})[row.grant_id] = row.credits
    return {
        row.client_id: LedgerFacts(
            client_id=row.client_id,
            epoch=row.epoch,
            grants=grants.get(row.client_id, {}),
            spent=spent.get(row.client_id, {}),
            tail=tuple(
                Charged(at_ms=at_ms, epoch=epoch, grants=shares)
                for (at_ms, epoch), shares in tails.get(row.client_id, {}).items()
            ),
            rebuild=row.rebuild,
            posted=posted.get(row.client_id, {}),
        )
        for row in _rows(connection, queries.EPOCHS, ids)
    }


def log_facts(connection: Connection, ids: Sequence[str]) -> dict[str, LogFacts]:
    """Return what the usage history has of each client, and what was derived from it. Reads all of their history."""
    grants = _per_grant(_rows(connection, queries.LOG_GRANTS, ids))
    spent = _per_grant(_rows(connection, queries.SPENT, ids))
    rollups = {row.client_id: row for row in _rows(connection, queries.LOG_ROLLUPS, ids)}
    runs = {row.client_id: row for row in _rows(connection, queries.LOG_RUNS, ids, most=ROWS_MAX)}
    unpaid = {row.client_id: row for row in _rows(connection, queries.LOG_UNPAID, ids, most=ROWS_MAX)}
    corrected = {row.client_id: row for row in _rows(connection, queries.LOG_CORRECTIONS, ids, most=ROWS_MAX)}
    found = {}
    for client_id in ids:
        run, rolled, lines = runs.get(client_id), rollups.get(client_id), unpaid.get(client_id)
        found[client_id] = LogFacts(
            client_id=client_id,
            rows=run.rows if run else 0,
            runs=run.runs if run else 0,
            credits=run.credits if run else 0,
            grants=grants.get(client_id, {}),
            spent=spent.get(client_id, {}),
            rolled_rows=rolled.rolled_rows if rolled else 0,
            rolled_credits=rolled.rolled_credits if rolled else 0,
            differing_rollups=tuple(RollupRow(**_with_hour(row)) for row in (rolled and rolled.differing) or ()),
            broken_runs=tuple(_broken(*fields) for fields in (run and run.broken) or ()),
            unpaid=lines.lines if lines else 0,
            unpaid_lines=tuple(_unpaid(*fields) for fields in (lines and lines.unpaid) or ()),
            corrections=tuple(uuid.UUID(run) for run in corrected[client_id].corrections)
            if client_id in corrected
            else (),
        )
    return found


def invoice_facts(connection: Connection, ids: Sequence[str], log: Mapping[str, LogFacts]) -> dict[str, InvoiceFacts]:
    """Return what each client's rollups and increments say."""
    planned = {row.client_id: row for row in _rows(connection, invoice_queries.PLANNED, ids)}
    states: dict[str, list[Any]] = collections.defaultdict(list)
    for row in _rows(connection, invoice_queries.INCREMENTS, ids):
        states[row.client_id].append(row)
    found = {}
    for client_id in ids:
        rolled, own = planned.get(client_id), states[client_id]
        found[client_id] = InvoiceFacts(
            client_id=client_id,
            credits=rolled.credits if rolled else 0,
            planned=rolled.planned if rolled else 0,
            logged=log[client_id].credits,
            increments=sum(state.increments for state in own),
            by_state={state.state: int(state.credits) for state in own},
            differing_rows=tuple(_planned_row(differing) for differing in (rolled and rolled.differing) or ()),
            differing_increments=tuple(
                DifferingIncrement(**{**differing, "odd": tuple(differing["odd"])})
                for state in own
                for differing in state.differing or ()
            ),
        )
    return found


def dead_letters(connection: Connection) -> int:
    """Return how many messages the log has refused, and no replay has written."""
    return int(connection.execute(text(queries.DEAD_LETTERS)).scalar_one())


def _rows(connection: Connection, query: str, ids: Sequence[str], **more: object) -> Rows:
    statement = text(query).bindparams(bindparam("ids", type_=ARRAY(Text)))
    return connection.execute(statement, {"ids": list(ids), **more}).all()


def _per_grant(rows: Rows) -> dict[str, dict[int, int]]:
    found: dict[str, dict[int, int]] = collections.defaultdict(dict)
    for row in rows:
        found[row.client_id][row.grant_id] = row.credits
    return found


def _broken(run_id: str, lines: str, first: str, last: str, settlement: str, other: str) -> BrokenRun:
    return BrokenRun(
        run_id=uuid.UUID(run_id),
        lines=int(lines),
        first_line=int(first),
        last_line=int(last),
        settlements=tuple(dict.fromkeys((settlement, other))),
    )


def _unpaid(run_id: str, line: str, credits_: str, paid: str) -> UnpaidLine:
    return UnpaidLine(run_id=uuid.UUID(run_id), line=int(line), credits=int(credits_), paid=int(paid))


def _planned_row(row: dict[str, Any]) -> PlannedRow:
    return PlannedRow(**{**_with_hour(row), "increments": tuple(row["increments"])})


def _with_hour(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "hour": datetime.fromisoformat(row["hour"])}
