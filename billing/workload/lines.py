"""The lines of a recording, numbered, each decoded or refused with a reason. Pure: any stream of bytes will do.

Memory is bounded by one line: what is longer is skipped and reported. Bytes that are no text are reported by line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Final, Protocol

from billing.workload.rows import Malformed

#: Bytes of one line (L9).
LINE_BYTES_MAX: Final = 65_536
_SKIP_BYTES: Final = 1_048_576
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line of text without its end, and its number in the file, counted from 1."""

    number: int
    text: str


class Stream(Protocol):
    """What lines are read from."""

    def readline(self, size: int = -1, /) -> bytes:
        """Return the next line with its end, at most `size` bytes of it; b"" at the end."""
        ...


def read_lines(stream: Stream) -> Iterator[Line | Malformed]:
    """Yield every line of a stream. A gzip stream that was cut off ends with one `Malformed` at the cut."""
    number = 0
    while True:
        number += 1
        try:
            raw = stream.readline(LINE_BYTES_MAX + 1)
            cut = len(raw) > LINE_BYTES_MAX and not raw.endswith(b"\n") and _skip(stream)
        except EOFError:
            yield Malformed(line=number, reason="the gzip stream is cut off here: what followed is not in the file")
            return
        if not raw:
            return
        yield _too_long(number) if cut else _line(number, raw)


def _line(number: int, raw: bytes) -> Line | Malformed:
    ended = raw.rstrip(b"\r\n") if raw.endswith((b"\n", b"\r")) else raw
    if len(ended) > LINE_BYTES_MAX:
        return _too_long(number)
    if b"\0" in ended:
        return Malformed(line=number, reason="contains a NUL byte")
    try:
        text = (ended.removeprefix(_BYTE_ORDER_MARK) if number == 1 else ended).decode("utf-8")
    except UnicodeDecodeError as error:
        return Malformed(line=number, reason=f"is not valid UTF-8 at byte {error.start + 1}")
    return Line(number=number, text=text) if text.strip() else Malformed(line=number, reason="is empty")


def _too_long(number: int) -> Malformed:
    return Malformed(line=number, reason=f"is longer than {LINE_BYTES_MAX:,} bytes")


def _skip(stream: Stream) -> bool:
    """Read past the rest of a line; return whether there was more of it than its end."""
    more = False
    while part := stream.readline(_SKIP_BYTES):
        more = more or part != b"\n"
        if part.endswith(b"\n"):
            break
    return more
