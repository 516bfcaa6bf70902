"""L8 within PostgreSQL: every planned credit is in exactly one increment, and nothing else is.

The parts of a rollup row lie end to end from 0 to what is planned of it, those of what corrections returned below 0; an
increment's parts add up to its units and lie in its period, or were carried into it; planned or not, the credits are
those of the log.
"""

from __future__ import annotations

from collections.abc import Iterator

from billing.reconciliation.facts import InvoiceFacts, PlannedRow
from billing.reconciliation.report import Discrepancy, Law, such_rows


def differences(invoice: InvoiceFacts) -> Iterator[Discrepancy]:
    """Yield what differs between a client's rollups, its increments and its log."""
    if invoice.differing_rows:
        rows = tuple(_row(invoice.client_id, row) for row in invoice.differing_rows)
        yield _of(invoice, _said(invoice.differing_rows[0], len(rows)), rows)
    for increment in invoice.differing_increments:
        found = f"increment {increment.increment_id} has {increment.units:,} units, its parts {increment.parts:,}"
        if increment.outside:
            found += f"; {increment.outside:,} parts are of hours outside its period"
        yield _of(invoice, found, ({"table": "stripe_increment", "increment_id": increment.increment_id},))
    units = sum(invoice.units.values())
    if invoice.planned != units:
        yield _of(invoice, f"usage_rollup says {invoice.planned:,} planned, the increments have {units:,} units")
    if invoice.credits != invoice.logged:
        waiting = invoice.credits - invoice.planned
        found = f"planned {invoice.planned:,} + not planned {waiting:,} is not the log's {invoice.logged:,}"
        yield _of(invoice, found)


def _said(row: PlannedRow, rows: int) -> str:
    found = f"{row.sku} in the hour {row.hour:%Y-%m-%d %H:%M}: "
    if row.planned is None or row.credits is None:
        found += f"increments carry {row.parts:,}, usage_rollup has no such row"
    elif row.beyond:
        found += f"{row.planned:,} of {row.credits:,} credits are planned"
    elif row.planned != row.parts:
        found += f"{row.planned:,} are planned, increments carry {row.parts:,}"
    else:
        found += "the parts of its increments overlap or leave a gap"
    named = ", ".join(map(str, row.increments[:5]))
    return found + (f" (increments {named})" if named else "") + such_rows(rows)


def _row(client_id: str, row: PlannedRow) -> dict[str, object]:
    return {
        "table": "usage_rollup",
        "client_id": client_id,
        "sku": row.sku,
        "hour": row.hour.isoformat(),
        "credits": row.credits,
        "planned": row.planned,
        "parts": row.parts,
        "increments": list(row.increments),
    }


def _of(invoice: InvoiceFacts, found: str, rows: tuple[dict[str, object], ...] = ()) -> Discrepancy:
    return Discrepancy(law=Law.PLANNED.value, client_id=invoice.client_id, found=found, rows=rows)
