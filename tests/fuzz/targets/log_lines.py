"""No line of a web log is lost or invented; each is a row whose fields keep their rules, or a reason in one line."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from billing.core.credits import CREDITS_MAX
from billing.core.identifiers import check_client_id, check_sku
from billing.workload.combined_log import read_combined
from billing.workload.lines import Line, read_lines
from billing.workload.rows import Entry, Malformed
from tests.fuzz.laws import check_line, hold
from tests.fuzz.target import Target

NOW: Final = datetime(2026, 11, 22, tzinfo=UTC)
#: Real lines, where this machine has them: access.log.gz is not part of the repository.
_RECORDED: Final = Path(os.environ.get("FUZZ_LOG", "../shared/data/apache_access_2015.log.gz"))
_LINES_TAKEN: Final = 60


def check(data: bytes) -> None:
    """Read bytes as a log."""
    lines = list(read_lines(io.BytesIO(data)))
    count = len(io.BytesIO(data).readlines())
    numbers = [line.number if isinstance(line, Line) else line.line for line in lines]
    hold(that=numbers == list(range(1, count + 1)), but=numbers)
    entries = list(read_combined(lines, "web-kib", NOW))
    hold(that=[entry.line for entry in entries] == numbers, but=entries)
    check_entries(entries)


def check_entries(entries: Iterable[Entry]) -> None:
    """Raise unless each entry is a row that can be charged, or a reason that can be told."""
    for entry in entries:
        if isinstance(entry, Malformed):
            check_line(entry.reason)
        else:
            check_client_id(entry.client_id)
            check_sku(entry.sku)
            hold(that=0 <= entry.quantity <= CREDITS_MAX, but=entry)
            hold(that=entry.at is None or entry.at <= NOW, but=entry)


def seeds() -> Iterator[bytes]:
    """Yield lines as Apache writes them, and real ones where there are some."""
    line = (
        '83.149.9.216 - frank [17/May/2015:10:05:03 +0000] "GET /a.png HTTP/1.1" 200 171717 '
        '"http://h/" "Mozilla/5.0 (\\"quoted\\")"\n'
    )
    yield line.encode()
    yield (line + line.replace("171717", "-")).encode()
    yield b"\xef\xbb\xbf" + line.encode()
    with suppress(OSError), gzip.open(_RECORDED) as recorded:
        for _ in range(_LINES_TAKEN):
            yield recorded.readline()


TARGET = Target(check=check, seeds=seeds, words=(b'"', b'\\"', b"[17/May/2015:10:05:03 +0000]", b" - - [", b"+2359]"))
