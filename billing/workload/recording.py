"""A recording on disk: one file, plain or gzipped, read from the beginning as often as needed, in bounded memory.

It refuses as a whole, before anything is submitted, what cannot be a recording: no file, a directory, an empty or
binary file, a damaged gzip, a column that is not there. A gzip that was cut off keeps the rows before the cut.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import os
import re
import stat
import zlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Final

from billing.core.errors import Fatal, InvalidValue
from billing.workload.combined_log import read_combined
from billing.workload.layout import Layout, Selection, combined_sku, select
from billing.workload.lines import Line, read_lines
from billing.workload.recorded_csv import fields_of, read_csv
from billing.workload.rows import Entry

_GZIP: Final = b"\x1f\x8b"
_BLOCK_BYTES: Final = 1_048_576
_SNIFFED_BYTES: Final = 8_192
#: A text has next to no such bytes among its first; a compressed or an executable file has many.
_NO_TEXT: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_NO_TEXT_SHARE_MAX: Final = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """A file that was looked at. `digest` names it together with its layout; `selection` is None for a web log."""

    path: Path
    layout: Layout
    digest: str
    selection: Selection | None
    sku: str
    _state: tuple[int, ...]

    @property
    def name(self) -> str:
        """The file's name as text: it may hold bytes that are none."""
        return os.fsencode(self.path.name).decode("utf-8", errors="backslashreplace")

    def entries(self, now: datetime) -> Iterator[Entry]:
        """Yield every row and every malformed line, in order. Nothing counts as recorded after `now`."""
        with _opened(self.path) as stream, _whole(self.path):
            lines = read_lines(stream)
            csv = self.selection
            for entry in read_combined(lines, self.sku, now) if csv is None else read_csv(lines, csv, now):
                # After the line was read: what a web server appends meanwhile is not what the digest names.
                self._check_unchanged()
                yield entry

    def _check_unchanged(self) -> None:
        if _state_of(self.path) != self._state:
            rule = "has changed since the replay began, which makes it another workload: replay a copy of it"
            raise Fatal(f"FILE: {str(self.path)!r}: {rule}")


def look_at(path: Path, layout: Layout) -> Recording:
    """Check that a file can be a recording of this layout, and name it. Raises `InvalidValue`."""
    sku = combined_sku(layout) if layout.format == "combined" else ""
    state = _state_of(path)
    _check_text(path)
    selection = None if layout.format == "combined" else select(layout, _header(path))
    return Recording(path=path, layout=layout, digest=_digest(path, layout), selection=selection, sku=sku, _state=state)


def _state_of(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError as error:
        raise _refused(path, _said(error)) from None
    if stat.S_ISDIR(found.st_mode):
        raise _refused(path, "is a directory")
    if not stat.S_ISREG(found.st_mode):
        raise _refused(path, "must be a regular file: it is read more than once")
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise _refused(path, _said(error)) from None
    with file:
        zipped = file.read(len(_GZIP)) == _GZIP
        file.seek(0)
        if zipped:
            with gzip.GzipFile(fileobj=file) as stream:
                yield stream  # type: ignore[misc]  # it has every method that is used of a file
        else:
            yield file


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Refuse a file whose compressed content is wrong: none of its rows can be trusted."""
    try:
        yield
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _refused(path, f"is a damaged gzip file: {error}") from None


def _check_text(path: Path) -> None:
    with _opened(path) as stream, _whole(path):
        try:
            # One read: asking on, a gzip that is cut off would raise and lose what came before the cut.
            sniffed = stream.read1(_SNIFFED_BYTES)  # type: ignore[attr-defined]  # both kinds of stream have it
        except EOFError:
            raise _refused(path, "is a gzip file that is cut off before its first line") from None
    if not sniffed:
        raise _refused(path, "is empty")
    undecodable = sniffed.decode("utf-8", errors="replace").count("\N{REPLACEMENT CHARACTER}")
    if len(_NO_TEXT.findall(sniffed)) + undecodable > _NO_TEXT_SHARE_MAX * len(sniffed):
        raise _refused(path, "is a binary file: must be text, plain or gzipped")


def _header(path: Path) -> list[str]:
    with _opened(path) as stream, _whole(path):
        first = next(read_lines(stream), None)
    if not isinstance(first, Line):
        reason = "is missing" if first is None else first.reason
        raise _refused(path, f"its first line must name the columns, and {reason}")
    try:
        return fields_of(first.text)
    except InvalidValue as refused:
        raise _refused(path, f"its first line must name the columns, and {refused.rule}") from None


def _digest(path: Path, layout: Layout) -> str:
    """Return the SHA-256 of a layout and of the file as it lies on disk."""
    digest = hashlib.sha256(hashlib.sha256(layout.canonical()).digest())
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _said(error: OSError) -> str:
    return (
        "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read: {os.strerror(error.errno or 0)}"
    )


def _refused(path: Path, rule: str) -> InvalidValue:
    return InvalidValue("FILE", str(path), rule)
