"""Shows an audit: a table per client, the laws as checked, and where the receipts are. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import rich.box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from billing.embedded.demo.audit import Audit, tally_all
from billing.embedded.demo.facts import Books
from billing.embedded.demo.receipt_csv import Receipt
from billing.embedded.demo.workload import DemoClient

_COLUMNS: Final = ("granted", "spent", "held", "available", "succeeded", "rejected", "failed", "usage\nrows")


def render(clients: Sequence[DemoClient], found: Audit, books: Books, receipts: Sequence[Receipt]) -> RenderableType:
    """Return everything that the demo has to show at its end."""
    return Group(clients_table(clients, found, books), laws_table(found), *[_receipt_line(r) for r in receipts])


def clients_table(clients: Sequence[DemoClient], found: Audit, books: Books) -> Table:
    """Return one row per client and one of sums; money first, then tasks, then rows of the log."""
    # Narrow enough for 80 characters.
    table = Table(box=rich.box.SIMPLE_HEAD, show_footer=True, pad_edge=False, padding=0)
    rows = []
    for client in clients:
        balance, tally = books.balances[client.client_id], found.tallies[client.client_id]
        money = (balance.granted, balance.spent, balance.held, balance.available)
        tasks = (tally.succeeded, tally.refused, tally.failed)
        rows.append((*money, *tasks, books.histories[client.client_id].rows))
    table.add_column("client", footer="all", no_wrap=True)
    for position, name in enumerate(_COLUMNS):
        footer = f"{sum(row[position] for row in rows):,}"
        table.add_column(name, footer=footer, justify="right", no_wrap=True)
    for client, row in zip(clients, rows, strict=True):
        table.add_row(client.client_id, *(f"{number:,}" for number in row))
    return table


def laws_table(found: Audit) -> Table:
    """Return one row per finding: the law, whether it holds, and what was compared or what differs."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for _ in range(3):
        table.add_column()
    for finding in found.findings:
        verdict = Text("holds", "green") if finding.holds else Text("BROKEN", "bold red")
        table.add_row(Text(finding.name), verdict, Text(finding.text))
    return table


def summary(found: Audit) -> str:
    """Return the last line: what it all comes to."""
    total = tally_all(found.tallies.values())
    if found.ok:
        return f"all laws hold; all {total.submitted:,} tasks are accounted for"
    broken = [finding.name for finding in found.findings if not finding.holds]
    return f"does not hold: {', '.join(broken)}"


def _receipt_line(receipt: Receipt) -> Text:
    return Text(f"receipt  {receipt.path}  {receipt.lines:,} lines, {receipt.credits:,} credits", "dim")
