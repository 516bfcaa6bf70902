"""Writes receipts: into a file, whole or not at all, or onto a stream as the lines come in."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Generator, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, BinaryIO, Final

from billing import admin
from billing.admin.receipt_line import ReceiptLine
from billing.admin.receipts import OpenReceipt
from billing.core.settings import Settings
from billing.fulfillment.selection import Selection
from billing.receipts.files import whole_file
from billing.receipts.forms import FORMS
from billing.receipts.summary import Tally

#: Is told the number of lines read so far, and the time of the last.
Tell = Callable[[int, datetime], None]
#: Lines between two words on how far it is.
_TOLD: Final = 1_000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """A written receipt: where it is, how many lines it has, and what they add up to."""

    path: Path
    lines: int
    credits: int


def write_html(
    settings: Settings,
    client_id: str,
    path: str | os.PathLike[str],
    start: datetime | None = None,
    end: datetime | None = None,
) -> Receipt:
    """Write a client's receipt as one HTML file; the span is that of `admin.open_receipt`.

    The file is there whole or not at all; its folder is made. Raises `UnknownClient`, `InvalidValue` for a span that
    is none or a place that cannot be written, and `Unreachable`.
    """
    return write(settings, client_id, path, "html", Selection(start=start, end=end))


def write_csv(
    settings: Settings,
    client_id: str,
    path: str | os.PathLike[str],
    start: datetime | None = None,
    end: datetime | None = None,
) -> Receipt:
    """Write a client's receipt as CSV, one row per line; else as `write_html`."""
    return write(settings, client_id, path, "csv", Selection(start=start, end=end))


def write_json(
    settings: Settings,
    client_id: str,
    path: str | os.PathLike[str],
    start: datetime | None = None,
    end: datetime | None = None,
) -> Receipt:
    """Write a client's receipt as one JSON document; else as `write_html`."""
    return write(settings, client_id, path, "json", Selection(start=start, end=end))


def write(
    settings: Settings,
    client_id: str,
    path: str | os.PathLike[str],
    form: str,
    of: Selection,
    *,
    tell: Tell | None = None,
) -> Receipt:
    """Write a client's receipt in one of `FORMS`; see `telling`."""
    place = Path(path)
    named = {"correlation_id": of.correlation_id, "root_id": of.root_id}
    with admin.open_receipt(settings, client_id, of.start, of.end, **named) as opened, whole_file(place) as file:
        tally = Tally()
        with contextlib.closing(_chunks(telling(opened, tell), form, tally)) as chunks:
            file.writelines(chunks)
    total = tally.summary().total
    return Receipt(path=place, lines=total.rows, credits=total.credits)


def stream(opened: OpenReceipt, form: str, output: BinaryIO) -> None:
    """Write a receipt onto a stream, as UTF-8, while its lines are read."""
    with contextlib.closing(_chunks(opened, form, Tally())) as chunks:
        output.writelines(chunk.encode() for chunk in chunks)
    output.flush()


def telling(opened: OpenReceipt, tell: Tell | None) -> OpenReceipt:
    """Return a receipt that tells, at times, how many lines were read and up to when."""
    if tell is None:
        return opened

    def lines() -> Iterator[ReceiptLine]:
        for count, line in enumerate(opened.lines, 1):
            if count % _TOLD == 0:
                tell(count, line.occurred_at)
            yield line

    return dataclasses.replace(opened, lines=lines())


def _chunks(opened: OpenReceipt, form: str, tally: Tally) -> Generator[str]:
    spool: IO[str]
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as spool:
        yield from FORMS[form](opened.head, opened.lines, tally, spool)
