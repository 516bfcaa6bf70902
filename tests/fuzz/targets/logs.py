"""What came from outside never breaks a line of the log, nor passes for another field, nor stops who logs it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Final

from billing.core.change_log import log_change
from billing.observability.logs import JsonFormatter
from tests.fuzz.laws import as_json, as_text, hold
from tests.fuzz.target import Target

#: A line has a few fields of at most 300 characters, each of which an escape makes ten.
_LINE_MAX: Final = 20_000


class _Lines(logging.Handler):
    """Keeps the records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


_LINES: Final = _Lines()
_LOGGER: Final = logging.Logger("billing.fuzzed")  # noqa: LOG001 - of nobody else
_LOGGER.addHandler(_LINES)
_FORMATTERS: Final = (logging.Formatter(), JsonFormatter())


def check(data: bytes) -> None:
    """Log bytes as text and as a value; format the line both ways."""
    text, value = as_text(data), as_json(data)
    _LINES.records.clear()
    log_change(_LOGGER, "refused", client_id=text, reason=value, number=5)
    (record,) = _LINES.records
    plain, written = (formatter.format(record) for formatter in _FORMATTERS)
    hold(that=plain.isprintable() and len(plain) <= _LINE_MAX, but=plain)
    hold(that=written.isprintable() and len(written) <= _LINE_MAX, but=written)
    # The one field of ours comes last, and nothing before it reads as a field of that name outside of quotes.
    hold(that=plain.startswith("billing: refused client_id=") and plain.endswith(" number=5"), but=plain)
    fields = json.loads(written, parse_constant=_no_json)
    hold(that=fields["change"] == "refused" and fields["number"] == 5, but=fields)


def _no_json(name: str) -> None:
    hold(that=False, but=("is no JSON", name))


def seeds() -> Iterator[bytes]:
    """Yield ids, and what looks like more than one field."""
    yield from (b"acme", b"a b", b'a" number=6', b"a=b", b"5", b"1.5", b'"text"', b'{"a":[1,null]}', b"\n", b"NaN")


TARGET = Target(check=check, seeds=seeds, words=(b" number=6", b'"', b"\n", b"\\n"))
