"""`billing receipt`."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

import click

from billing import admin
from billing.admin.receipt_line import ReceiptLine
from billing.admin.receipts import OpenReceipt
from billing.cli.completing import client_argument
from billing.cli.context import settings
from billing.cli.output import json_option, table
from billing.cli.progress import Tell, into_a_file, progress
from billing.cli.selecting import selecting
from billing.core.errors import InvalidValue
from billing.core.printable import printable
from billing.fulfillment.selection import Selection

#: L9: lines that a table shows. It is for eyes, and is laid out in memory.
SHOWN_MAX: Final = 1_000
_FORMATS: Final = ("table", "json", "csv", "html")
_SUFFIXES: Final = {".json": "json", ".csv": "csv", ".html": "html", ".htm": "html"}
_COLUMNS: Final = (
    "time (UTC)", "correlation id", "task", "SKU", "paid by", "Stripe", "quantity", "price", "credits",
)  # fmt: skip


@click.command(epilog="Example: billing receipt acme --from 2026-11-01 --output acme.html")
@client_argument
@selecting
@click.option(
    "--format", "form", type=click.Choice(_FORMATS), default=None, help="Default: table, or by the name of the file."
)
@click.option("--output", type=click.Path(path_type=Path), default=None, help="Write this file, whole or not at all.")
@json_option
def receipt(
    *,
    client_id: str,
    start: datetime | None,
    end: datetime | None,
    correlation_id: str | None,
    root_id: str | None,
    form: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Show what a client paid for, line by line: each task, its price, who paid, and its report to Stripe.

    Without --from and --to it is the current month, in UTC; of one task or workflow, the days on which it ran.
    """
    form = _chosen(form, output, as_json=as_json)
    of = Selection(start=start, end=end, correlation_id=correlation_id, root_id=root_id)
    from billing.receipts import writing  # noqa: PLC0415 - the template engine is slow to import

    if output is not None:
        with progress(wanted=not as_json) as tell:
            written = writing.write(settings(), client_id, output, form, of, tell=_told(tell))
        sums = {"path": str(written.path), "lines": written.lines, "credits": written.credits}
        click.echo(json.dumps(sums) if as_json else f"{output}: {written.lines:,} lines, {written.credits:,} credits")
        return
    # What is printed while it is read shares the terminal with nothing; a table is printed at the end.
    shown = not as_json and (form == "table" or into_a_file())
    named = {"correlation_id": correlation_id, "root_id": root_id}
    with admin.open_receipt(settings(), client_id, start, end, **named) as opened:
        if form == "table":
            _print(opened, wanted=shown)
            return
        with progress(wanted=shown) as tell:
            writing.stream(writing.telling(opened, _told(tell)), form, sys.stdout.buffer)


def _told(tell: Tell | None) -> Callable[[int, datetime], None] | None:
    """Return what says how far a receipt is."""
    if tell is None:
        return None
    return lambda lines, until: tell(f"{lines:,} lines, up to {until:%Y-%m-%d}")


def _chosen(form: str | None, output: Path | None, *, as_json: bool) -> str:
    """Return the format. With a file `--json` says how the command answers; without one, what it prints."""
    if as_json and output is None:
        if form not in (None, "json"):
            raise InvalidValue("--format", form, "must be json, or left out, with --json")
        return "json"
    if output is None:
        return form or "table"
    form = form or _SUFFIXES.get(output.suffix.lower())
    if form in (None, "table"):
        raise InvalidValue(
            "--output", str(output), "must end in .html, .csv or .json, or --format must name one of them"
        )
    return form


def _print(opened: OpenReceipt, *, wanted: bool) -> None:
    from billing.receipts import wording, writing  # noqa: PLC0415 - see above
    from billing.receipts.summary import Sum, Tally  # noqa: PLC0415

    head, tally = opened.head, Tally()
    with progress(wanted=wanted) as tell:
        counted = tally.counting(writing.telling(opened, _told(tell)).lines)
        shown = list(itertools.islice(counted, SHOWN_MAX))
        for _ in counted:
            pass
    summary = tally.summary()
    title = wording.title(head.client_id, head.start, head.end, head.correlation_id, head.root_id)
    table(title, _COLUMNS, map(_row, shown), numbers=3)

    def subtotals(name: str, sums: list[Sum]) -> None:
        rows = [(wording.label(s), s.rows, s.quantity, s.credits) for s in sums]
        if rows:
            table(None, (name, "lines", "quantity", "credits"), rows, numbers=3)

    subtotals("SKU", [*summary.by_sku])
    subtotals("day", [*summary.by_day])
    subtotals("paid by", [*summary.by_grant])
    subtotals("Stripe", [*summary.by_increment, *([summary.unreported] if summary.unreported.rows else [])])
    total = summary.total
    if len(shown) < total.rows:
        click.echo(f"{len(shown):,} of {total.rows:,} lines shown; all: {wording.everything(head)}")
    for apart, what in ((summary.corrections, "corrections"), (summary.dry_runs, "dry runs, not charged")):
        if apart.rows:
            click.echo(f"{what}: {apart.rows:,} lines, {apart.quantity:,} units, {apart.credits:,} credits")
    click.echo(f"{total.rows:,} lines, {total.quantity:,} units, {total.credits:,} credits in all")


def _row(line: ReceiptLine) -> tuple[object, ...]:
    from billing.receipts import wording  # noqa: PLC0415 - see above

    task = printable(line.task) + line.marks
    if line.corrected:
        task += f" corrects {line.corrected}" + (f": {printable(line.reason)}" if line.reason else "")
    quantity = f"{line.quantity:,} {printable(line.unit)}".rstrip()
    price = (
        f"v{line.price_version}"
        if line.credits_per_unit is None
        else f"{line.credits_per_unit:,} v{line.price_version}"
    )
    who = wording.payers(line.grants)
    return (
        line.occurred_at, printable(line.correlation_id), task, line.sku, who, line.reporting, quantity, price,
        line.credits,
    )  # fmt: skip
