"""`billing sync reconcile`: every credit of the log against what became of it, per client, meter and period (L8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from billing import admin
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option, table
from billing.core.printable import printable
from billing.reconciliation.invoice_row import InvoiceRow
from billing.reconciliation.invoices import Invoices

#: What became of credits, and the heads of these columns; those that are 0 in every row are left out.
_BECAME: Final = {
    "planned": "planned",
    "in_flight": "in flight",
    "confirmed": "confirmed",
    "quarantined": "quarantined",
    "carried": "carried",
    "written_off": "written off",
    "unplanned": "unplanned",
}


@click.command(epilog="Example: billing sync reconcile acme")
@click.argument("client_ids", nargs=-1, metavar="[CLIENT]...")
@click.option("--all", "every", is_flag=True, help="Show every period, not only those that differ.")
@click.option("--stripe/--no-stripe", default=None, help="Ask Stripe for its totals (default: of clients by name).")
@json_option
def reconcile(client_ids: tuple[str, ...], *, every: bool, stripe: bool | None, as_json: bool) -> None:
    """Show what became of every credit used, per client, meter and billing period, beside Stripe's own totals.

    Without CLIENT: of all clients, the periods that differ. Exit code 1 when one differs or could not be compared.
    """
    found = admin.sync_reconcile(settings(), client_ids or None, stripe=stripe, every=every)
    if as_json:
        emit_json(found)
    else:
        if found.rows:
            _table(found.rows)
        for row in found.rows:
            for said in (row.says, row.not_compared and f"not compared: {row.not_compared}"):
                if said:
                    click.echo(f"{printable(row.client_id)}, {row.period_start:%Y-%m-%d}: {said}")
        click.echo(_summary(found))
    if not found.ok:
        click.get_current_context().exit(1)


def _table(rows: Sequence[InvoiceRow]) -> None:
    became = {name: head for name, head in _BECAME.items() if any(getattr(row, name) for row in rows)}
    asked = any(row.stripe is not None or row.not_compared for row in rows)
    heads = ["log", *became.values(), *(["units sent", "Stripe"] if asked else [])]
    cells = []
    for row in rows:
        numbers: list[object] = [row.log, *(getattr(row, name) for name in became)]
        if asked:
            numbers += [f"{row.sent:,}" + (f" + {row.doubtful:,}?" if row.doubtful else ""), row.stripe]
        start = f"{row.period_start:%Y-%m-%d %H:%M}".removesuffix(" 00:00")
        cells.append((row.client_id, row.event_name, start, *numbers))
    table(None, ("client", "meter", "period from", *heads), cells, numbers=len(heads))


def _summary(found: Invoices) -> str:
    sums = {name.replace("_", " "): number for name, number in found.sums.items() if number and name != "rollup"}
    parts = [f"{number:,} {name}" for name, number in sums.items()]
    verdict = "nothing differs" if not found.differing else f"{found.differing:,} differ"
    verdict += f", {found.not_compared:,} not compared" if found.not_compared else ""
    credits_ = f"; in credits: {', '.join(parts)}" if parts else ""
    return f"{found.clients:,} clients, {found.periods:,} periods: {verdict}{credits_}"
