"""Reads a receipt: every usage line of a client in a span of time, with the increments that reported it to Stripe.

One read-only snapshot, so that all lines are of one instant; some UTC days after the other, as many as have a few
thousand lines, so that a client-month of any size needs little memory here and a small sort there, and one of few lines
few statements: each is planned over every month of the history. The index (client_id, occurred_at) finds the days.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from billing.admin.access import runtime_for
from billing.admin.receipt_line import ReceiptHead, ReceiptLine
from billing.admin.receipt_parts import Part, Parts
from billing.admin.spans import INSTANT, bounded, span
from billing.catalog.clients import get_client
from billing.catalog.prices import load_price_book
from billing.connections import postgres
from billing.core.settings import Settings
from billing.events.usage_event import DRY_RUN
from billing.fulfillment.selection import Selection

#: Rows fetched at once from the database (L9).
FETCH_ROWS: Final = 1_000
_DAY: Final = timedelta(days=1)
#: Lines that one statement should read, and the days that it reads at most: use may rise from one day to the next (L9).
LINES_WANTED: Final = 5_000
DAYS_MAX: Final = 8

#: When a client next used anything.
_NEXT_USE: Final = text("""
SELECT min(occurred_at) FROM usage_ever
WHERE client_id = :client_id AND occurred_at >= :start AND occurred_at < :end
""")

#: When a task or workflow first and last used anything. Its rows are few, and are found first, by its id: to the
#: planner, the way through all of the client's usage in the order of time would look shorter.
_NAMED_USE: Final = """
WITH named AS MATERIALIZED (SELECT occurred_at FROM usage_ever WHERE client_id = :client_id AND {condition})
SELECT min(occurred_at) AS first, max(occurred_at) AS last FROM named
"""

#: The lines of a client in order of time, each with the running total that it brought its rollup row to: what was used
#: has one, what corrections returned another. The total is taken over whole hours, since a rollup row is an hour, also
#: where the receipt begins or ends within one, or has but one task of it.
_LINES: Final = """
SELECT run_id, line, correlation_id, task, sku, quantity, credits, grants, price_version, late, occurred_at, corrects,
       corrects_line, mode, hour, total, CASE WHEN corrects IS NOT NULL THEN
           (SELECT reason FROM usage_correction AS made WHERE made.run_id = placed.run_id) END AS reason
FROM (
    SELECT *, sum(credits) OVER (
        PARTITION BY sku, hour, credits < 0 ORDER BY recorded_at, run_id, line ROWS UNBOUNDED PRECEDING
    )::bigint AS total
    FROM (
        SELECT *, date_trunc('hour', occurred_at, 'UTC') AS hour FROM usage_ever
        WHERE client_id = :client_id AND occurred_at >= date_trunc('hour', CAST(:start AS timestamptz), 'UTC')
          AND occurred_at < date_trunc('hour', CAST(:last AS timestamptz), 'UTC') + interval '1 hour'
    ) AS used
) AS placed
WHERE occurred_at >= :start AND occurred_at <= :last AND {named}
ORDER BY occurred_at, run_id, line
"""

#: Where a part is billed, if not on the invoice of the period in which it was used.
_BILLED: Final = """
CASE WHEN state = 'written_off' THEN ''
     WHEN kind = 'invoice_item' THEN 'a line of its own'
     WHEN hour < date_trunc('hour', period_start, 'UTC')
     THEN 'on the invoice from ' || to_char(period_start AT TIME ZONE 'UTC', 'YYYY-MM-DD') ELSE '' END AS billed
"""

#: The parts of a client's rollup rows that increments carry: those of the rows' period, and what a later one carried. A
#: period has the whole hour that it begins in.
_PARTS: Final = text(f"""
SELECT sku, hour, credits_from, credits_to, increment_id, state, {_BILLED}
FROM stripe_increment JOIN stripe_increment_part USING (increment_id)
WHERE client_id = :client_id AND period_start < CAST(:last AS timestamptz) + interval '1 hour' AND hour <= :last
  AND hour >= date_trunc('hour', CAST(:start AS timestamptz), 'UTC') AND hour < period_end
UNION ALL
SELECT sku, hour, credits_from, credits_to, increment_id, state, {_BILLED}
FROM stripe_increment JOIN stripe_increment_part USING (increment_id)
WHERE client_id = :client_id AND carries_from <= :last
  AND period_start >= CAST(:last AS timestamptz) + interval '1 hour' AND hour <= :last
  AND hour >= date_trunc('hour', CAST(:start AS timestamptz), 'UTC')
""")  # noqa: S608 - text of our own


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OpenReceipt:
    """A receipt that is being read: its head, and its lines, which can be taken once."""

    head: ReceiptHead
    lines: Iterator[ReceiptLine]


def receipt(
    settings: Settings,
    client_id: str,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    correlation_id: str | None = None,
    root_id: str | None = None,
) -> Iterator[ReceiptLine]:
    """Yield the lines of a receipt in order of time; see `open_receipt`."""
    with open_receipt(settings, client_id, start, end, correlation_id=correlation_id, root_id=root_id) as opened:
        yield from opened.lines


@contextlib.contextmanager
def open_receipt(
    settings: Settings,
    client_id: str,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    correlation_id: str | None = None,
    root_id: str | None = None,
) -> Iterator[OpenReceipt]:
    """Within, the lines of a client from `start` up to, not including, `end` can be read.

    Without `start` it is the beginning of the UTC month that `end` closes, or of the current one; without `end`, the
    month of `start` ends it. `correlation_id` leaves the lines of one task, `root_id` those of a workflow: the task
    with this id and all that it started; then, without both, it is the days on which it ran. Raises `UnknownClient`,
    and `InvalidValue` for a span that is none.
    """
    runtime = runtime_for(settings)
    now = runtime.clock.now()
    of = bounded(Selection(start=start, end=end, correlation_id=correlation_id, root_id=root_id), now)
    engine = runtime.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with postgres.reaching(settings), engine.connect() as connection:
        known = get_client(connection, client_id)
        start, end = (of.start, of.end) if of.start and of.end else _days(connection, known.client_id, of, now)
        of = dataclasses.replace(of, start=start, end=end)
        head = ReceiptHead(
            client_id=known.client_id, start=start, end=end, read_at=now, correlation_id=correlation_id, root_id=root_id
        )
        # Closed before its connection is: a cursor that is left open would be closed on whoever has it next.
        with contextlib.closing(_read(connection, head, of)) as lines:
            yield OpenReceipt(head=head, lines=lines)


def _days(connection: Connection, client_id: str, of: Selection, now: datetime) -> tuple[datetime, datetime]:
    """Return the UTC days on which a task or workflow ran, as far as they are not given; this month, if it has not."""
    first, last = _named_use(connection, client_id, of)
    if first is None or last is None:
        return span(of.start, of.end, now)
    return of.start or _midnight(first), of.end or _midnight(last) + _DAY


def _named_use(connection: Connection, client_id: str, of: Selection) -> tuple[datetime | None, datetime | None]:
    statement = text(_NAMED_USE.format(condition=of.condition()))
    first, last = connection.execute(statement, {"client_id": client_id, **of.values()}).one()
    return first, last


def _midnight(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _read(connection: Connection, head: ReceiptHead, of: Selection) -> Generator[ReceiptLine]:
    # The unit of a SKU is the same at all its prices.
    units = {price.sku: price.unit for price in load_price_book(connection).prices()}
    start, days = head.start, 1
    while start < head.end and (used := _next_use(connection, head, of, start, days)) is not None:
        count = 0
        for line in _read_days(connection, head.client_id, *used, of, units):
            count += 1
            yield line
        start = _midnight(used[0]) + days * _DAY
        days = days_after(days, count)


def days_after(days: int, lines: int) -> int:
    """Return how many days the next statement reads, after one that found `lines` in `days`."""
    if lines > LINES_WANTED:
        return max(1, days // 2)
    return min(2 * days, DAYS_MAX) if 2 * lines <= LINES_WANTED else days


def _next_use(
    connection: Connection, head: ReceiptHead, of: Selection, start: datetime, days: int
) -> tuple[datetime, datetime] | None:
    """Return from which to which instant the next days of use are to be read, both included; None: no more."""
    if of.by_name:
        first, _ = _named_use(connection, head.client_id, dataclasses.replace(of, start=start))
    else:
        wanted = {"client_id": head.client_id, "start": start, "end": head.end}
        first = connection.execute(_NEXT_USE, wanted).scalar_one()
    if first is None:
        return None
    end = min(_midnight(first) + days * _DAY, head.end)
    # One task or workflow is read no further than it ran: the rest of the days is other usage.
    within = dataclasses.replace(of, start=start, end=end)
    last = _named_use(connection, head.client_id, within)[1] if of.by_name else None
    return first.astimezone(UTC), last or end - INSTANT


def _read_days(
    connection: Connection,
    client_id: str,
    first: datetime,
    last: datetime,
    of: Selection,
    units: Mapping[str, str],
) -> Iterator[ReceiptLine]:
    """Yield the lines from an instant to another, both included; the second one ends a UTC day, or the receipt."""
    wanted = {**of.values(), "client_id": client_id, "start": first, "last": last}
    streamed = {"yield_per": FETCH_ROWS}
    with contextlib.closing(connection.execute(_PARTS, wanted, execution_options=streamed)) as found:
        parts = Parts(Part(**row._mapping) for row in found)  # noqa: SLF001 - SQLAlchemy's documented way
    lines = text(_LINES.format(named=of.named()))
    with contextlib.closing(connection.execute(lines, wanted, execution_options=streamed)) as rows:
        for row in rows:
            yield _line(row, parts, units)


def _line(row: Row[*tuple[Any, ...]], parts: Parts, units: Mapping[str, str]) -> ReceiptLine:
    grants: dict[int, int] = {}
    for share in row.grants:
        grants[int(share["grant"])] = grants.get(int(share["grant"]), 0) + int(share["credits"])
    # Rating multiplies whole numbers, so that a charge and its quantity show the price; a dry run has no charge.
    per_unit, rest = divmod(row.credits, row.quantity) if row.quantity and row.mode != DRY_RUN else (None, 0)
    return ReceiptLine(
        run_id=row.run_id,
        line=row.line,
        correlation_id=row.correlation_id,
        task=row.task,
        sku=row.sku,
        quantity=row.quantity,
        unit=units.get(row.sku, ""),
        price_version=row.price_version,
        credits_per_unit=None if rest else per_unit,
        credits=row.credits,
        grants=grants,
        occurred_at=row.occurred_at,
        late=row.late,
        corrects=row.corrects,
        corrects_line=row.corrects_line,
        reason=row.reason or "",
        mode=row.mode,
        reported=parts.carrying(row.sku, row.hour, row.credits, row.total),
    )
