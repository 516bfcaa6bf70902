"""Corrections of the usage history: a compensating row that names the line it corrects; the original stays (L7).

The row, the rollup, the grants' sums and the postings to the bucket are one transaction, apart from a rebuild, as a
batch of the log is (L6): after it a rebuild comes to the same balance as the bucket that is told. One correction of a
client at a time, so that all of them together never exceed what the line was charged. Idempotent by the caller's key.

It refuses a correction of a correction, a second one in the same direction unless asked for, and whatever was not
charged.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row

from billing.core.errors import Conflict, InvalidValue
from billing.core.ids import run_id as make_run_id
from billing.events.usage_event import DRY_RUN, PaidLine
from billing.fulfillment import adjustment_statements as sql
from billing.fulfillment import log_statements
from billing.fulfillment.allotment import pay
from billing.fulfillment.compensation import Correction, check_bound, check_credits, returned, shares_of
from billing.fulfillment.doubts import grants_left
from billing.ledger import locks, postings
from billing.ledger.bounds import check_charge
from billing.ledger.keys import check_key

REASON_LENGTH_MAX: Final = 500
_HOUR_MS: Final = 3_600_000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Adjustment:
    """A correction that stands. `credits` and the shares in `grants` are below 0 where they were returned."""

    run_id: uuid.UUID
    client_id: str
    key: str
    corrects: uuid.UUID
    corrects_line: int
    credits: int
    grants: Mapping[int, int]
    reason: str
    created_at: datetime

    def __str__(self) -> str:
        return f"a correction of {self.corrects}:{self.corrects_line} by {self.credits:+,}"


def check_reason(reason: object) -> str:
    """Return why: 1 to 500 printable characters, since somebody will ask."""
    if not isinstance(reason, str) or not 1 <= len(reason.strip()) <= REASON_LENGTH_MAX or not reason.isprintable():
        raise InvalidValue("reason", reason, f"must be 1 to {REASON_LENGTH_MAX} printable characters")
    return reason.strip()


def find_line(connection: Connection, run: uuid.UUID, line: int | None) -> Row[*tuple[Any, ...]]:
    """Return a line of the history with its client's shard; without a number it is the run's only one.

    Raises `InvalidValue` for what is not there, and where a run of several lines was named without one.
    """
    found = connection.execute(sql.READ_LINE, {"run_id": run, "line": line or 0}).one_or_none()
    if found is not None and line is None and found.lines > 1:
        rule = f"has {found.lines} lines: name one of them, as {run}:0"
        raise InvalidValue("run_id", str(run), rule)
    if found is None:
        lines = connection.execute(sql.COUNT_LINES, {"run_id": run}).scalar_one()
        if lines:
            raise InvalidValue("line", line, f"run {run} has the lines 0 to {lines - 1}")
        rule = "is not in the usage history, nor in its archive"
        raise InvalidValue("run_id", str(run), rule)
    return found


def adjust(
    connection: Connection,
    run: uuid.UUID,
    line: int | None,
    credits: object,
    *,
    reason: object,
    key: object,
    again: bool = False,
) -> tuple[Adjustment, bool]:
    """Correct a line by credits (below 0: return them; above 0: charge more); return it, and whether it is new.

    Raises `InvalidValue`, and `Conflict` for a key that was used with other content.
    """
    amount, why, once = check_credits(credits), check_reason(reason), check_key(key)
    original = find_line(connection, run, line)
    named = f"{original.run_id}:{original.line}"
    if original.corrects is not None:
        rule = f"is a correction itself, of {original.corrects}; correct that line again instead"
        raise InvalidValue("run_id", named, rule)
    # The locks of a batch, in its order: apart from a rebuild first.
    locks.lock_shards_shared(connection, [original.shard])
    connection.execute(sql.LOCK_CLIENT, {"client_id": original.client_id})
    known = _of_key(connection, original, once, amount)
    if known is not None:
        return known, False
    if original.mode == DRY_RUN:
        raise InvalidValue("run_id", named, "was a dry run: it was charged nothing, so there is nothing to correct")
    read = connection.execute(sql.READ_CORRECTIONS, {"run_id": original.run_id, "line": original.line})
    before = [Correction(run_id=row.run_id, credits=row.credits, grants=shares_of(row.grants)) for row in read]
    check_bound(f"line {named}", original.credits, before, amount, again=again)
    now = connection.execute(sql.READ_NOW, {"client_id": original.client_id}).one()
    if amount < 0:
        shares = returned(shares_of(original.grants), before, amount)
    else:
        check_charge(connection, original.client_id, amount)
        shares = _charged(connection, original, amount, now.now_ms)
    return _write(connection, original, now, shares, {"key": once, "reason": why}), True


def _of_key(connection: Connection, original: Row[*tuple[Any, ...]], key: str, amount: int) -> Adjustment | None:
    """Return the correction that a key made before; raise `Conflict` if the key was used for anything else."""
    asked = f"so it cannot be a correction of {original.run_id}:{original.line} by {amount:+,}"
    named = {"client_id": original.client_id, "key": key}
    row = connection.execute(sql.READ_CORRECTION, named).one_or_none()
    if row is None:
        other = connection.execute(sql.READ_OTHER_USE, named).scalar()
        if other is not None:
            message = f"key: {key!r}: was used for {other}, {asked}"
            raise Conflict(message)
        return None
    found = _adjustment(row)
    if (found.corrects, found.corrects_line, found.credits) != (original.run_id, original.line, amount):
        message = f"key: {key!r}: was used for {found}, {asked}"
        raise Conflict(message)
    return found


def _charged(connection: Connection, original: Row[*tuple[Any, ...]], amount: int, now_ms: int) -> dict[int, int]:
    """Return who pays what a line is charged more: the client's grants in burn order as of now, then debt."""
    rows = connection.exec_driver_sql(log_statements.READ_GRANTS_LEFT, ([original.client_id],))
    books = grants_left(rows)[original.client_id]
    line = PaidLine(sku=original.sku, quantity=0, credits=amount, grants=())
    return {share.grant: share.credits for share in pay(line, books, now_ms).grants}


def _write(
    connection: Connection,
    original: Row[*tuple[Any, ...]],
    now: Row[*tuple[Any, ...]],
    shares: Mapping[int, int],
    told: Mapping[str, str],
) -> Adjustment:
    """Write a correction, in the order in which a batch of the log writes: the history, its sums, the postings.

    `told` is its key and its reason.
    """
    amount = sum(shares.values())
    run = make_run_id(original.client_id, told["key"], nesting=0, nonce="correction", at_milliseconds=now.now_ms)
    values = {
        **{name: getattr(original, name) for name in _KEPT},
        "run_id": run,
        "settlement_id": f"correction-{run.hex}",
        "credits": amount,
        "grants": [{"grant": grant, "credits": part} for grant, part in shares.items()],
        "now_ms": now.now_ms,
        "hour_ms": now.now_ms - now.now_ms % _HOUR_MS,
        "returned": max(0, -amount),
        "corrects": original.run_id,
        "corrects_line": original.line,
        **told,
    }
    connection.execute(sql.ADD_ROW, values)
    connection.execute(sql.ADD_ROLLUP, values)
    grants = sorted(shares)
    sums = ([original.client_id] * len(grants), grants, [shares[grant] for grant in grants])
    connection.exec_driver_sql(log_statements.ADD_SPENT, sums)
    postings.add(connection, original.client_id, now.epoch, shares)
    return _adjustment(connection.execute(sql.ADD_CORRECTION, values).one())


#: What a compensating row has of the line that it corrects. Its quantity is 0: what was done was done.
_KEPT: Final = ("client_id", "correlation_id", "root_id", "task", "attempt", "sku", "price_version")


def _adjustment(row: Row[*tuple[Any, ...]]) -> Adjustment:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's documented way to a row's mapping
    return Adjustment(**{**values, "grants": shares_of(values["grants"])})
