"""`make costs`: what billing costs now, beside what is recorded; `--record` writes today's figures into the record."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from billing.embedded.stack import Stack
from tests.cost.measures import MEASURES
from tests.cost.place import place_on
from tests.cost.records import RECORDED, Figure, Row, compared, read, total, written


def main() -> int:
    """Count everything, or the parts that are named; return 1 where a figure differs from its record."""
    parser = argparse.ArgumentParser(prog="make costs", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(MEASURES))
    parser.add_argument("--record", action="store_true", help="write today's figures into the record")
    given = parser.parse_args()
    if unknown := [part for part in given.parts if part not in MEASURES]:
        parser.error(f"PART: {unknown[0]!r}: must be one of: {', '.join(MEASURES)}")
    found: dict[str, Mapping[str, Figure]] = {}
    with Stack(fast=True) as stack:
        for part in given.parts or MEASURES:
            with place_on(stack) as place:
                found.update(MEASURES[part](place))
    text = RECORDED.read_text("utf-8")
    rows = compared(read(text), found)
    Console().print(_table(rows))
    wrong = [row for row in rows if row.complaint]
    if given.record:
        RECORDED.write_text(written(text, found), "utf-8")
        sys.stdout.write(f"{len(wrong)} figures are recorded anew in {RECORDED.name}\n")
        return 0
    sys.stdout.write("".join(f"{row.complaint}\n" for row in wrong))
    sys.stdout.write(f"{len(rows)} figures, {len(wrong)} of them not as recorded\n")
    return 1 if wrong else 0


def _shown(figure: Figure | None) -> str:
    return "" if figure is None else f"{total(figure):,}"


def _table(rows: list[Row]) -> Table:
    table = Table("what", "figure", box=None)
    for column in ("recorded", "now"):
        table.add_column(column, justify="right")
    before = ""
    for row in rows:
        name = row.table if row.table != before else ""
        style = "bold red" if row.complaint else ""
        table.add_row(name, row.name, _shown(row.recorded), _shown(row.now), style=style)
        before = row.table
    return table


if __name__ == "__main__":
    sys.exit(main())
