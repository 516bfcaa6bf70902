"""The forms in which a receipt leaves as text, each as a stream of chunks, so that its size does not matter. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO, Final, Protocol

from billing.admin.receipt_line import ReceiptHead, ReceiptLine
from billing.receipts import as_csv, as_html, as_json
from billing.receipts.summary import Tally


class Form(Protocol):
    """Yields a receipt as text while the lines come in, counting them; `spool` may hold lines that wait for sums."""

    def __call__(self, head: ReceiptHead, lines: Iterable[ReceiptLine], tally: Tally, spool: IO[str]) -> Iterator[str]:
        """Yield the text, chunk by chunk."""
        ...


#: Name → form. The order is that of `--help`.
FORMS: Final[dict[str, Form]] = {"json": as_json.chunks, "csv": as_csv.chunks, "html": as_html.chunks}
