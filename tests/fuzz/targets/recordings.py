"""A file on disk is a recording, row by row, or refused in one line; a gzip bomb costs one line of memory (L9)."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Final

from billing.workload.layout import Layout
from billing.workload.recording import look_at
from tests.fuzz.laws import refusing
from tests.fuzz.places import fresh_place
from tests.fuzz.target import Target
from tests.fuzz.targets.log_lines import NOW, check_entries

#: Entries of one input that are looked at: a small gzip may hold millions of lines, and reading is a stream.
_LOOKED_AT: Final = 2_000


@cache
def _place() -> Path:
    """Return where the file is written: in memory where the system has such a place."""
    return fresh_place()


def check(data: bytes) -> None:
    """Write bytes as a file; look at it, and read it, in both formats."""
    path = _place() / "recording"
    path.write_bytes(data)
    for layout in (Layout(), Layout(format="combined")):
        with refusing():
            check_entries(islice(look_at(path, layout).entries(NOW), _LOOKED_AT))


def seeds() -> Iterator[bytes]:
    """Yield plain, zipped, cut, doubled and damaged files, and one that is a thousand times as large unzipped."""
    text = b"client,sku,quantity\nacme,page,3\n" * 3
    zipped = gzip.compress(text, mtime=0)
    yield text
    yield zipped
    yield zipped[:-9]
    yield zipped + zipped
    yield zipped + b"\0\0trailing"
    yield zipped[:20] + b"\xff" + zipped[21:]
    yield gzip.compress(b"client,sku,quantity\n" + b"x" * 300_000, mtime=0)


TARGET = Target(check=check, seeds=seeds, words=(b"\x1f\x8b\x08", b"client,sku,quantity\n"), length_max=8_192)
