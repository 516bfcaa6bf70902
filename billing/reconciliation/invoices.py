"""Reads the table per client, meter and period (L8), slice by slice: what was used, what became of it, what Stripe has.

It only reads. Of many clients only the rows that differ are kept, up to a bound; all are counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import ARRAY, Text, bindparam, text

from billing.core.errors import UnknownClient
from billing.core.identifiers import check_client_id
from billing.reconciliation import reading
from billing.reconciliation.invoice_row import InvoiceRow
from billing.reconciliation.invoice_rows_query import INVOICE_ROWS
from billing.reconciliation.stripe_side import Compared, StripeSide
from billing.reconciliation.totals import Totals
from billing.task.runtime import Runtime

#: Rows that are kept (L9).
ROWS_MAX: Final = 1_000
_SUMS: Final = (
    *("log", "rollup", "planned", "in_flight", "confirmed", "quarantined"),
    *("written_off", "carried", "unplanned", "missing"),
)

_Key = tuple[str, str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Invoices:
    """The rows that were asked for, the first at most, and what all of them come to (`sums`, in credits).

    `differing` rows contradict a book; of `not_compared` ones Stripe's total could not be had.
    """

    rows: tuple[InvoiceRow, ...]
    clients: int
    periods: int
    differing: int
    not_compared: int
    sums: dict[str, int]

    @property
    def ok(self) -> bool:
        """Whether everything that was asked for was compared, and nothing differs."""
        return not self.differing and not self.not_compared


def read_invoices(
    runtime: Runtime,
    client_ids: Sequence[str] | None = None,
    *,
    stripe: bool,
    every: bool,
    totals: Totals | None = None,
) -> Invoices:
    """Compare some clients' periods (None: all clients'); keep `every` row, or those that differ or were not compared.

    Raises `UnknownClient`, and `Unreachable` when PostgreSQL does not answer; a Stripe that does not answer is part of
    the result.
    """
    side = StripeSide(runtime, totals) if stripe else None
    rows: list[InvoiceRow] = []
    sums = dict.fromkeys(_SUMS, 0)
    clients = periods = differing = not_compared = 0
    try:
        for ids in _slices(runtime, client_ids):
            clients += len(ids)
            for row in _compared(runtime, ids, side):
                periods += 1
                differing += row.differs
                not_compared += bool(row.not_compared)
                for name in _SUMS:
                    sums[name] += getattr(row, name)
                if (every or row.differs or row.not_compared) and len(rows) < ROWS_MAX:
                    rows.append(row)
    finally:
        if side is not None:
            side.close()
    return Invoices(
        rows=tuple(rows),
        clients=clients,
        periods=periods,
        differing=differing,
        not_compared=not_compared,
        sums=sums,
    )


def _slices(runtime: Runtime, client_ids: Sequence[str] | None) -> Iterator[list[str]]:
    settings, after = runtime.settings, ""
    only = None if client_ids is None else sorted({check_client_id(client_id) for client_id in client_ids})
    while True:
        with reading.snapshot(settings, runtime.engine) as connection:
            limit = settings.reconcile_slice if only is None else len(only)
            ids = reading.page(connection, after=after, limit=limit, only=only)
        if only is not None:
            for client_id in only:
                if client_id not in ids:
                    raise UnknownClient(client_id)
        if ids:
            yield ids
        if only is not None or not ids:
            return
        after = ids[-1]


def _compared(runtime: Runtime, ids: list[str], side: StripeSide | None) -> Iterable[InvoiceRow]:
    """Return the rows of a slice; one that takes too long is read in halves."""
    try:
        found = _read(runtime, ids)
    except reading.TooLong:
        if len(ids) == 1:
            raise
        half = len(ids) // 2
        yield from _compared(runtime, ids[:half], side)
        yield from _compared(runtime, ids[half:], side)
        return
    for period in side.read(ids) if side is not None else ():
        key = (period.client_id, period.event_name, period.period_start)
        if side is None:
            break
        row = found.get(key) or InvoiceRow(
            client_id=period.client_id,
            event_name=period.event_name,
            period_start=period.period_start,
            period_end=period.period_end,
        )
        found[key] = _with(row, side.compare(period))
    yield from (found[key] for key in sorted(found))


def _read(runtime: Runtime, ids: Sequence[str]) -> dict[_Key, InvoiceRow]:
    query = text(INVOICE_ROWS).bindparams(bindparam("ids", type_=ARRAY(Text)))
    with reading.snapshot(runtime.settings, runtime.engine) as connection:
        rows = connection.execute(query, {"ids": list(ids), "meter": runtime.settings.stripe_meter}).mappings()
        found = [InvoiceRow(**row) for row in rows]
    return {(row.client_id, row.event_name, row.period_start): row for row in found}


def _with(row: InvoiceRow, compared: Compared) -> InvoiceRow:
    """Return a row with one of its customers' totals added."""
    period = compared.period
    stripe = row.stripe if compared.total is None else (row.stripe or 0) + compared.total
    found = "; ".join([*([row.found] if row.found else []), *(one.found for one in compared.found)])
    return dataclasses.replace(
        row,
        sent=row.sent + period.known,
        doubtful=row.doubtful + period.doubtful,
        stripe=stripe,
        found=found,
        not_compared=row.not_compared or compared.left_out,
    )
