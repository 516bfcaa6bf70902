"""L8 within PostgreSQL: every planned credit is in exactly one increment, and nothing else is.

The parts of a rollup row lie end to end from 0 to what is planned of it, those of what corrections returned below 0; an
increment's parts add up to its units in credits and lie in its period, or before it from the hour on that it names;
planned or not, the credits are those of the log. What is said of an increment elsewhere, its generations, attempts and
resolutions, is how it stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from billing.reconciliation.facts import DifferingIncrement, InvoiceFacts, PlannedRow
from billing.reconciliation.report import Discrepancy, Law, such_rows

#: What is found in the columns of an increment that do not fit.
ODD: Final = {
    "carries_from": "carries_from is not the first hour that it carries",
    "generation": "stripe_generation does not end with its identifier, minute and period",
    "credits_per_unit": "its meter counts another number of credits as one unit",
    "event_name": "it carries usage that another meter counts",
    "resolution": "what a person said of it is not how it stands",
    "reason": "it is written off, and nobody said why",
    "attempts": "its attempts are not those of stripe_attempt",
}


def differences(invoice: InvoiceFacts) -> Iterator[Discrepancy]:
    """Yield what differs between a client's rollups, its increments and its log."""
    if invoice.differing_rows:
        rows = tuple(_row(invoice.client_id, row) for row in invoice.differing_rows)
        yield _of(invoice, _said(invoice.differing_rows[0], len(rows)), rows)
    for increment in invoice.differing_increments:
        yield _of(
            invoice,
            f"increment {increment.increment_id} {_odd(increment)}",
            ({"table": "stripe_increment", "increment_id": increment.increment_id},),
        )
    carried = sum(invoice.by_state.values())
    if invoice.planned != carried:
        yield _of(invoice, f"usage_rollup says {invoice.planned:,} planned, the increments carry {carried:,} credits")
    if invoice.credits != invoice.logged:
        waiting = invoice.credits - invoice.planned
        found = f"planned {invoice.planned:,} + not planned {waiting:,} is not the log's {invoice.logged:,}"
        yield _of(invoice, found)


def _odd(increment: DifferingIncrement) -> str:
    units = f"{increment.units:,} units"
    if increment.credits_per_unit != 1:
        units += f" of {increment.credits_per_unit:,} credits"
    found = [f"has {units}, its parts {increment.parts:,}"]
    if increment.outside:
        found.append(f"{increment.outside:,} parts are of hours outside its period")
    return "; ".join([*found, *(ODD[odd] for odd in increment.odd)])


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
