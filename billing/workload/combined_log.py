"""Rows of a web server's access log in the combined format. Pure.

The client is the address, the quantity is the KiB that were begun to be sent: 0 for none and for `-`. The format is
Apache's `%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-agent}i"`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from billing.core.errors import InvalidValue
from billing.workload.lines import Line
from billing.workload.rows import Entry, Malformed, Row, make_row, malformed, read_quantity, short

BYTES_PER_UNIT: Final = 1_024
_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_LINE: Final = re.compile(
    rf"(?P<address>\S+) \S+ [^\[]*\[(?P<time>[^\]]*)\] {_QUOTED} [0-9]{{3}} (?P<bytes>\S+) {_QUOTED} {_QUOTED}"
)
_TIME: Final = re.compile(r"(\d{2})/(\w{3})/(\d{4}):(\d{2}):(\d{2}):(\d{2}) ([+-])(\d{2})(\d{2})", re.ASCII)
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def read_combined(lines: Iterable[Line | Malformed], sku: str, now: datetime) -> Iterator[Entry]:
    """Yield a row or a `Malformed` for each line."""
    for line in lines:
        if isinstance(line, Malformed):
            yield line
            continue
        try:
            yield _row(line, sku, now)
        except InvalidValue as refused:
            yield malformed(line.number, refused)


def _row(line: Line, sku: str, now: datetime) -> Row:
    found = _LINE.fullmatch(line.text.rstrip())
    if found is None:
        raise InvalidValue("line", short(line.text), "is not in the combined log format")
    sent = 0 if found["bytes"] == "-" else read_quantity(found["bytes"])
    return make_row(
        line=line.number,
        client_id=found["address"],
        sku=sku,
        quantity=-(-sent // BYTES_PER_UNIT),
        at=_read_time(found["time"]),
        now=now,
    )


def _read_time(text: str) -> datetime:
    """Read a time as `17/May/2015:10:05:03 +0000`; months are English, whatever this machine's language is."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise _no_time(text)
    day, month, year, hour, minute, second, sign, hours, minutes = found.groups()
    away = timedelta(hours=int(hours), minutes=int(minutes))
    try:
        zone = timezone(-away if sign == "-" else away)
        local = datetime(
            int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second), tzinfo=zone
        )
        return local.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _no_time(text) from None


def _no_time(text: str) -> InvalidValue:
    return InvalidValue("time", short(text), "must be a time as 17/May/2015:10:05:03 +0000")
