"""A receipt as one HTML file: no script, nothing from elsewhere; readable on a phone, printable, every text escaped.

Subtotals and charts stand first and are known last: the lines wait in the spool. A page that a browser can open has
a bound on its lines; the sums are of all lines, and the page says what it leaves out. Pure but for the spool.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import IO, Final

import jinja2

from billing.admin.receipt_line import ReceiptHead, ReceiptLine
from billing.core.printable import printable
from billing.receipts import charts, wording
from billing.receipts.summary import Sum, Tally

#: L9: lines on one page, which a phone still opens (about 10 MB). CSV and JSON have them all.
LINES_MAX: Final = 10_000
_COPIED: Final = 65_536
#: Pieces of the template that are joined before they are written.
_JOINED: Final = 256


def chunks(head: ReceiptHead, lines: Iterable[ReceiptLine], tally: Tally, spool: IO[str]) -> Iterator[str]:
    """Yield the document: head, charts and subtotals, then the lines."""
    made = _environment()
    counted = tally.counting(lines)
    listed = made.get_template("lines.html.jinja").stream(lines=_linked(itertools.islice(counted, LINES_MAX)))
    listed.enable_buffering(_JOINED)
    spool.writelines(listed)
    for _ in counted:  # what is beyond the bound is in the sums
        pass
    summary = tally.summary()
    yield made.get_template("head.html.jinja").render(
        head=head,
        summary=summary,
        lines_max=LINES_MAX,
        time_chart=charts.over_time(head, summary),
        sku_chart=charts.by_sku(summary),
        size=charts.SIZE,
    )
    spool.seek(0)
    while copied := spool.read(_COPIED):
        yield copied
    yield made.get_template("foot.html.jinja").render(head=head, summary=summary)


def _linked(lines: Iterable[ReceiptLine]) -> Iterator[tuple[ReceiptLine, bool]]:
    """Yield lines, each with whether the line that it corrects stands before it on the page, and can be led to."""
    shown: set[int] = set()
    for line in lines:
        # Hashes: ten thousand names would be most of what a page takes. At worst a link leads nowhere.
        shown.add(hash((line.run_id, line.line)))
        yield line, line.corrects is not None and hash((line.corrects, line.corrects_line)) in shown


@functools.cache
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("billing.receipts"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(
        printable=printable,
        iso=wording.iso,
        clock=wording.clock,
        day=wording.day,
        moment=wording.moment,
        payer=wording.payer,
        everything=wording.everything,
        number="{:,}".format,
        labelled=_labelled,
    )
    return made


def _labelled(counted: Sum) -> tuple[str, Sum]:
    """Return a subtotal with what it is of."""
    return wording.label(counted), counted
