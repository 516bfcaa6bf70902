"""What every parser promises: a value, or billing's own error in one bounded line; never anything else.

What an input makes a parser raise besides leaves `refusing` as it is, and is a finding.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from billing.core.errors import BillingError, InvalidValue

#: Characters of a line that a person is still told (L9).
LINE_MAX: Final = 2_500
#: Stands in inputs where a password, a key or a secret would. No message may have it.
SECRET: Final = "hunter2hunter2"


class Broken(AssertionError):
    """A law does not hold for an input."""


def hold(*, that: bool, but: object) -> None:
    """Raise unless a law holds; `but` says what was found."""
    if not that:
        raise Broken(but)


@contextmanager
def refusing(*, secret: bool = False) -> Iterator[None]:
    """Within, billing's own errors are what an input may lead to, each one line; `secret`: one that shows none."""
    try:
        yield
    except BillingError as error:
        check_line(str(error))
        hold(that=f"sk_test_{SECRET}" not in str(error), but=("shows a key", str(error)))
        hold(that=not secret or SECRET not in str(error), but=("shows a secret", str(error)))
        if isinstance(error, InvalidValue):
            hold(that=bool(error.field and error.rule), but=error.args)


def check_line(text: str) -> None:
    """Raise unless a text is one line that a terminal, a log and PostgreSQL take, and bounded."""
    hold(that=text.isprintable(), but=("not one printable line", text))
    hold(that=0 < len(text) <= LINE_MAX, but=("not of a bounded length", len(text)))


def as_json(data: bytes) -> Any:
    """Return what bytes are as JSON, NaN, duplicate keys and lone surrogates included; None for what is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def as_text(data: bytes) -> str:
    """Return bytes as arguments and environment variables come in: what is no UTF-8 becomes lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


def parts_of(data: bytes, count: int) -> list[bytes]:
    """Return exactly so many parts of an input, which are parted by the byte 0xff."""
    parts = data.split(b"\xff", count - 1)
    return parts + [b""] * (count - len(parts))
