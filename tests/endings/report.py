"""Prints the records of a run as a table: a line per cell, a column per place."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tests.endings.cell import Cell
from tests.endings.combination import Combination
from tests.endings.record import Record


def show(console: Console, cells: Sequence[Cell], places: Sequence[Combination], records: Sequence[Record]) -> None:
    """Print the table, then why cells cannot be in a pool, then what went wrong."""
    found = {(record.place, record.cell): record for record in records}
    table = Table("cell", *(f"{place.version} {place.pool}\n{place.broker}" for place in places))
    for cell in cells:
        table.add_row(cell.key, *(_mark(cell, place, found.get((place, cell.key))) for place in places))
    console.print(table)
    for cell in cells:
        for reason in dict.fromkeys(cell.unfit.values()):
            pools = ", ".join(pool for pool, its in cell.unfit.items() if its == reason)
            console.print(f"{cell.key}: cannot be in {pools}: {reason}", markup=False, highlight=False)
    for record in records:
        if record.problems:
            text = f"{record.place}: {record.cell}: {'; '.join(record.problems)}"
            console.print(text, markup=False, highlight=False)


def _mark(cell: Cell, place: Combination, record: Record | None) -> str:
    if not cell.is_planned(place):
        return ""
    if not cell.runs_in(place):
        return "-"
    if record is None:
        return "not run"
    return "FAILED" if record.problems else "ok"
