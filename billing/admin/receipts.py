"""Reads a receipt: every usage line of a client in a span of time, with the increments that reported it to Stripe.

One read-only snapshot, so that all lines are of one instant; one UTC day after the other, so that a client-month of
any size needs little memory here and a small sort there. The index (client_id, occurred_at) finds each day.
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
from billing.catalog.clients import get_client
from billing.catalog.prices import load_price_book
from billing.connections import postgres
from billing.core.errors import InvalidValue
from billing.core.settings import Settings
from billing.events.usage_event import DRY_RUN

#: Rows fetched at once from the database (L9).
FETCH_ROWS: Final = 1_000
#: Earlier and later than any usage; within, every computation with days and months has a result.
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(3000, 1, 1, tzinfo=UTC)
_DAY: Final = timedelta(days=1)
_INSTANT: Final = timedelta(microseconds=1)

#: When a client next used anything.
_NEXT_USE: Final = text("""
SELECT min(occurred_at) FROM usage_history
WHERE client_id = :client_id AND occurred_at >= :start AND occurred_at < :end
""")

#: The lines of a client in order of time, each with the running total that it brought its rollup row to: what was used
#: has one, what corrections returned another. The total is taken over whole hours, since a rollup row is an hour, also
#: where the receipt begins or ends within one.
_LINES: Final = text("""
SELECT run_id, line, correlation_id, task, sku, quantity, credits, grants, price_version, late, occurred_at, corrects,
       corrects_line, mode, hour, total, CASE WHEN corrects IS NOT NULL THEN
           (SELECT reason FROM usage_correction AS made WHERE made.run_id = placed.run_id) END AS reason
FROM (
    SELECT *, sum(credits) OVER (
        PARTITION BY sku, hour, credits < 0 ORDER BY recorded_at, run_id, line ROWS UNBOUNDED PRECEDING
    )::bigint AS total
    FROM (
        SELECT *, date_trunc('hour', occurred_at, 'UTC') AS hour FROM usage_history
        WHERE client_id = :client_id AND occurred_at >= date_trunc('hour', CAST(:start AS timestamptz), 'UTC')
          AND occurred_at < date_trunc('hour', CAST(:last AS timestamptz), 'UTC') + interval '1 hour'
    ) AS used
) AS placed
WHERE occurred_at >= :start AND occurred_at <= :last
ORDER BY occurred_at, run_id, line
""")

#: The parts of a client's rollup rows that increments carry: those of the rows' period, and what a later one carried.
_PARTS: Final = text("""
SELECT sku, hour, credits_from, credits_to, increment_id, state
FROM stripe_increment JOIN stripe_increment_part USING (increment_id)
WHERE client_id = :client_id AND period_start <= :last AND hour <= :last
  AND hour >= date_trunc('hour', CAST(:start AS timestamptz), 'UTC') AND hour < period_end
UNION ALL
SELECT sku, hour, credits_from, credits_to, increment_id, state
FROM stripe_increment JOIN stripe_increment_part USING (increment_id)
WHERE client_id = :client_id AND carries_from <= :last AND period_start > :last AND hour <= :last
  AND hour >= date_trunc('hour', CAST(:start AS timestamptz), 'UTC')
""")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OpenReceipt:
    """A receipt that is being read: its head, and its lines, which can be taken once."""

    head: ReceiptHead
    lines: Iterator[ReceiptLine]


def receipt(
    settings: Settings, client_id: str, start: datetime | None = None, end: datetime | None = None
) -> Iterator[ReceiptLine]:
    """Yield the lines of a receipt in order of time; see `open_receipt`."""
    with open_receipt(settings, client_id, start, end) as opened:
        yield from opened.lines


@contextlib.contextmanager
def open_receipt(
    settings: Settings, client_id: str, start: datetime | None = None, end: datetime | None = None
) -> Iterator[OpenReceipt]:
    """Within, the lines of a client from `start` up to, not including, `end` can be read.

    Without `start` it is the beginning of the UTC month that `end` closes, or of the current one; without `end`, the
    month of `start` ends it. Raises `UnknownClient`, and `InvalidValue` for a span that is none.
    """
    runtime = runtime_for(settings)
    now = runtime.clock.now()
    start, end = span(start, end, now)
    engine = runtime.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with postgres.reaching(settings), engine.connect() as connection:
        known = get_client(connection, client_id)
        head = ReceiptHead(client_id=known.client_id, start=start, end=end, read_at=now)
        # Closed before its connection is: a cursor that is left open would be closed on whoever has it next.
        with contextlib.closing(_read(connection, head)) as lines:
            yield OpenReceipt(head=head, lines=lines)


def span(start: datetime | None, end: datetime | None, now: datetime) -> tuple[datetime, datetime]:
    """Return the span of a receipt in UTC. Raises `InvalidValue` for one without a zone, empty or out of range."""
    for field, instant in (("from", start), ("to", end)):
        if instant is not None and instant.tzinfo is None:
            raise InvalidValue(field, instant.isoformat(), "must have a time zone, as 2026-11-21T08:00:00Z")
        if instant is not None and not _EARLIEST <= instant <= _LATEST:
            rule = f"must be from {_EARLIEST:%Y-%m-%d} to {_LATEST:%Y-%m-%d}"
            raise InvalidValue(field, instant.isoformat(), rule)
    if start is None:
        start = _month((end or now + _INSTANT) - _INSTANT)
    if end is None:
        # Any month has at least 28 days and at most 31.
        end = _month(_month(start) + 32 * _DAY)
    if start >= end:
        raise InvalidValue("from", start.isoformat(), f"must be before {end.isoformat()}, the end of the receipt")
    return start.astimezone(UTC), end.astimezone(UTC)


def _month(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _read(connection: Connection, head: ReceiptHead) -> Generator[ReceiptLine]:
    # The unit of a SKU is the same at all its prices.
    units = {price.sku: price.unit for price in load_price_book(connection).prices()}
    start = head.start
    while start < head.end:
        wanted = {"client_id": head.client_id, "start": start, "end": head.end}
        next_use = connection.execute(_NEXT_USE, wanted).scalar_one()
        if next_use is None:
            return
        first = next_use.astimezone(UTC)
        start = first.replace(hour=0, minute=0, second=0, microsecond=0) + _DAY
        yield from _read_day(connection, head.client_id, first, min(start, head.end) - _INSTANT, units)


def _read_day(
    connection: Connection, client_id: str, first: datetime, last: datetime, units: Mapping[str, str]
) -> Iterator[ReceiptLine]:
    """Yield the lines from an instant to another of the same UTC day, both included."""
    wanted = {"client_id": client_id, "start": first, "last": last}
    streamed = {"yield_per": FETCH_ROWS}
    with contextlib.closing(connection.execute(_PARTS, wanted, execution_options=streamed)) as found:
        parts = Parts(Part(**row._mapping) for row in found)  # noqa: SLF001 - SQLAlchemy's documented way
    with contextlib.closing(connection.execute(_LINES, wanted, execution_options=streamed)) as rows:
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
