"""What a result backend's record of a task says, whichever backend wrote it. Pure.

A record that nobody can read is one task's own matter: it is told apart from a backend that is away (L10).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from celery.exceptions import SecurityError
from kombu.exceptions import DecodeError, SerializerNotInstalled

from billing.core.errors import InvalidValue

#: What a backend, and this, raise for a record that is not as Celery writes it.
UNREADABLE: Final = (
    InvalidValue,
    DecodeError,
    SerializerNotInstalled,
    SecurityError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


def is_unreadable(error: Exception) -> bool:
    """Whether a backend has answered, with what is no record; a certificate that is refused is a `ValueError` too."""
    return isinstance(error, UNREADABLE) and not isinstance(error, OSError)


def status_of(meta: object) -> str:
    """Return the state of a record. Raises `InvalidValue` where it has none."""
    status = meta.get("status") if isinstance(meta, Mapping) else None
    if not isinstance(status, str):
        raise InvalidValue("status", status, "must be the text of a state")
    return status


def stored_at(date_done: object) -> datetime | None:
    """Return when a result was stored: backends give text or a time, some without a zone, which is UTC then."""
    if isinstance(date_done, str):
        try:
            date_done = datetime.fromisoformat(date_done)
        except ValueError:
            return None
    if not isinstance(date_done, datetime):
        return None
    try:
        return date_done.replace(tzinfo=UTC) if date_done.tzinfo is None else date_done.astimezone(UTC)
    except OverflowError:  # of the year 1 or 9999
        return None
