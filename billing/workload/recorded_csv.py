"""Rows of a CSV file, one physical line each. Pure.

A quoted field ends on its line: one that does not makes its line malformed, and the lines after it are not lost.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from datetime import datetime

from billing.core.errors import InvalidValue
from billing.workload.layout import Selection, Source, spread_client
from billing.workload.lines import Line
from billing.workload.rows import Entry, Malformed, Row, make_row, malformed, read_quantity, read_time


def fields_of(text: str) -> list[str]:
    """Return the fields of a line, or raise `InvalidValue`."""
    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise InvalidValue("line", text[:40], f"is no line of a CSV file: {error}") from None


def read_csv(lines: Iterable[Line | Malformed], selection: Selection, now: datetime) -> Iterator[Entry]:
    """Yield a row or a `Malformed` for each line after the header's, which is the first."""
    for place, line in enumerate(lines, start=-1):
        if place < 0:
            continue
        if isinstance(line, Malformed):
            yield line
            continue
        try:
            yield _row(line, place, selection, now)
        except InvalidValue as refused:
            yield malformed(line.number, refused)


def _row(line: Line, place: int, selection: Selection, now: datetime) -> Row:
    fields = fields_of(line.text)
    if len(fields) != selection.columns:
        raise InvalidValue("fields", len(fields), f"must be {selection.columns}, as the header has")
    client, time = selection.client, selection.time
    return make_row(
        line=line.number,
        client_id=spread_client(place, selection.spread) if client is None else _value(client, fields),
        sku=_value(selection.sku, fields),
        quantity=_quantity(selection.quantity, fields),
        at=None if time is None else read_time(_value(time, fields)),
        now=now,
    )


def _value(source: Source, fields: list[str]) -> str:
    return fields[source.positions[0]] if source.fixed is None else source.fixed


def _quantity(source: Source, fields: list[str]) -> int:
    if source.fixed is not None:
        return read_quantity(source.fixed)
    return sum(read_quantity(fields[position]) for position in source.positions)
