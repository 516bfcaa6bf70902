"""Hostile names change nothing of a receipt but their own text: no tag in HTML, no formula in CSV, no lost line."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from typing import Final

from billing.admin.receipt_line import ReceiptHead
from billing.receipts.as_csv import COLUMNS
from billing.receipts.forms import FORMS
from billing.receipts.summary import Tally
from tests.fuzz.laws import hold
from tests.fuzz.target import Target
from tests.receipts import FREE, HEAD, LINE

_FORMULA: Final = ("=", "+", "-", "@")
_TEXTS: Final = ("correlation_id", "task", "unit", "reason")


class _Tags(HTMLParser):
    """Collects the tags of a page with the names of their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))


def check(data: bytes) -> None:
    """Write a receipt whose every text is what bytes say, in each form."""
    # What the log takes: any text without NUL and halves of pairs.
    text = data.decode("utf-8", "ignore").replace("\0", "")[:300]
    head = dataclasses.replace(HEAD, client_id=text or "x", correlation_id=text or None)
    hold(that=_tags(_written("html", head, text)) == _plain_tags(bool(text)), but=text)
    rows = list(csv.reader(io.StringIO(_written("csv", head, text), newline="")))
    hold(that=[len(row) for row in rows] == [len(COLUMNS)] * 3, but=rows)
    for row in rows[1:]:
        for name in _TEXTS:
            cell = row[COLUMNS.index(name)]
            hold(that=not cell.lstrip().startswith(_FORMULA), but=(name, cell))
    found = json.loads(_written("json", head, text))
    hold(that=[line["task"] for line in found["lines"]] == [text, text], but=found)


def _written(form: str, head: ReceiptHead, text: str) -> str:
    changes = dict.fromkeys(_TEXTS, text)
    lines = [dataclasses.replace(line, **changes) for line in (LINE, FREE)]  # type: ignore[arg-type]
    return "".join(FORMS[form](head, lines, Tally(), io.StringIO(newline="")))


def _tags(page: str) -> list[tuple[str, tuple[str, ...]]]:
    parser = _Tags()
    parser.feed(page)
    return parser.found


@cache
def _plain_tags(has_text: bool) -> list[tuple[str, tuple[str, ...]]]:  # noqa: FBT001 - of a cache
    text = "x" if has_text else ""
    return _tags(_written("html", dataclasses.replace(HEAD, client_id="x", correlation_id=text or None), text))


def seeds() -> Iterator[bytes]:
    """Yield names that are tags, formulas, quotes and escapes."""
    yield from (b"acme", b"", b"<script>alert(1)</script>", b"'\" onload=x", b"=1+1", b"a;=1", b"\t@x", b"&lt;b&gt;")
    yield from ("\u202eevil".encode(), "\uff1d1".encode(), b"</svg><img src=x>", b"{{7*7}}", b"]]>", b"<!--")


TARGET = Target(
    check=check, seeds=seeds, words=(b"<", b"</", b"<!--", b"&#60;", b'"', b";=", b"\r\n=", b"<svg onload=")
)
