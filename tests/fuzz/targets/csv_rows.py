"""A CSV file becomes rows that can be charged and reasons in one line, or is refused as a whole before any row."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Final

from billing.core.credits import CREDITS_MAX
from billing.workload.layout import Layout, select
from billing.workload.lines import Line, read_lines
from billing.workload.price_list import read_prices
from billing.workload.recorded_csv import fields_of, read_csv
from billing.workload.row_task import arguments, verify_row
from billing.workload.rows import Malformed
from billing.workload.survey import priceable, survey
from tests.fuzz.laws import as_text, hold, parts_of, refusing
from tests.fuzz.target import Target
from tests.fuzz.targets.log_lines import NOW, check_entries

_OPTIONS: Final = 5


def check(data: bytes) -> None:
    """Read bytes as options of a replay, then the file: 0xff parts them."""
    *options, body = parts_of(data, _OPTIONS + 1)
    client, sku, quantity, time, price = map(as_text, options)
    lines = list(read_lines(io.BytesIO(body)))
    with refusing():
        read_prices(price.split())
    with refusing():
        layout = Layout(client=client, sku=sku, quantity=quantity, time=time)
        header = lines[0] if lines else None
        if not isinstance(header, Line):
            return
        selection = select(layout, fields_of(header.text))
        entries = list(read_csv(lines, selection, NOW))
        hold(that=len(entries) == len(lines) - 1, but=entries)
        check_entries(entries)
        found = survey(entries)
        for entry in priceable(entries, dict.fromkeys(found.skus, 3)):
            if not isinstance(entry, Malformed):
                hold(that=entry.quantity * 3 <= CREDITS_MAX, but=entry)
                verify_row(*arguments(entry))


def seeds() -> Iterator[bytes]:
    """Yield files of each layout."""
    rows = b'client,sku,quantity,time\nacme,page,3,2026-11-21T08:00:00Z\n"beta",kib,0,2026-11-21\n'
    yield b"\xff\xff\xff\xff\xff" + rows
    yield b"client\xffsku\xffquantity\xfftime\xff2 page=3\xff" + rows
    yield b"=acme\xff=page\xff=1\xff\xff1\xff" + rows
    yield b"a\xff=page\xffb+c\xff\xff\xffa,b,c\nacme,1,2\nbeta,3,4\n"


TARGET = Target(check=check, seeds=seeds, words=(b'"', b'""', b",", b"\xff", b"=1", b"a+b", b"page=3"))
