"""A receipt as CSV: a header and one row per line, nothing else, for spreadsheets and programs. Pure.

Text from outside cannot become a formula when the file is opened in a spreadsheet: what begins like one gets an
apostrophe before it, also after a semicolon or a tab, which many spreadsheets take for the end of a cell.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from typing import IO, Final

from billing.admin.receipt_line import ReceiptHead, ReceiptLine
from billing.receipts.summary import Tally
from billing.receipts.wording import iso

COLUMNS: Final = (
    "run_id", "line", "correlation_id", "task", "sku", "quantity", "unit", "price_version", "credits_per_unit",
    "credits", "grants", "occurred_at", "late", "mode", "corrects", "reason", "increments",
    "not_reported",
)  # fmt: skip
#: What spreadsheets take for the beginning of a formula, also in their wide forms, directly or after what they strip.
_FORMULA: Final = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_STRIPPED: Final = ("\t", "\r", "\n")
#: Where a spreadsheet with another separator begins a cell or a row, with what it strips or takes for a quote.
_CELL_WITHIN: Final = re.compile(rf"([;\t\r\n][\s\"]*)([{re.escape(''.join(_FORMULA))}]?)")

Cell = str | int | None


def chunks(head: ReceiptHead, lines: Iterable[ReceiptLine], tally: Tally, spool: IO[str]) -> Iterator[str]:  # noqa: ARG001 - a form's signature
    """Yield the header, then each line."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    for line in tally.counting(lines):
        yield _taken(buffer)
        writer.writerow(cells(line))
    yield _taken(buffer)


def cells(line: ReceiptLine) -> tuple[Cell, ...]:
    """Return a line's cells: times in UTC; grants are `grant:credits`, increments `increment:state:credits`."""
    return (
        str(line.run_id),
        line.line,
        safe(line.correlation_id),
        safe(line.task),
        safe(line.sku),
        line.quantity,
        safe(line.unit),
        line.price_version,
        line.credits_per_unit,
        line.credits,
        " ".join(f"{grant}:{credits_}" for grant, credits_ in line.grants.items()),
        iso(line.occurred_at),
        "yes" if line.late else "no",
        line.mode or "",
        line.corrected,
        safe(line.reason),
        " ".join(f"{part.increment_id}:{part.state}:{part.credits}" for part in line.reported),
        line.unreported,
    )


def safe(text: str) -> str:
    """Return text that a spreadsheet takes for text, whichever separator it is set to."""
    text = _CELL_WITHIN.sub(lambda found: f"{found[1]}'{found[2]}" if found[2] else found[1], text)
    return f"'{text}" if text.startswith(_STRIPPED) or text.lstrip().startswith(_FORMULA) else text


def _taken(buffer: io.StringIO) -> str:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text
