"""What a recorded workload is made of: rows, and lines that are none. Pure.

A line of a recording becomes either one `Row` or one `Malformed` that says why; no line is lost, none is invented.
The checks stand here, whatever the format of the file is.
"""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime
from typing import Final

from billing.core.credits import CREDITS_MAX
from billing.core.errors import InvalidValue
from billing.core.identifiers import check_client_id, check_sku

_QUANTITY_RULE: Final = f"must be a whole number from 0 to {CREDITS_MAX}"
_DIGITS: Final = re.compile(r"[0-9]{1,16}")
#: Characters of a value, and of a whole reason, that a person is shown.
_SHOWN_MAX: Final = 60
_REASON_MAX: Final = 240


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One unit of recorded work. `line` is its line in the file, counted from 1; `at` is when it was recorded."""

    line: int
    client_id: str
    sku: str
    quantity: int
    at: datetime | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Malformed:
    """A line that is no row, and why."""

    line: int
    reason: str


Entry = Row | Malformed


def make_row(
    *,
    line: int,
    client_id: str,
    sku: str,
    quantity: int,
    at: datetime | None,
    now: datetime,
) -> Row:
    """Return a row whose every field keeps its rule, or raise `InvalidValue`. Nothing was recorded after `now`."""
    if at is not None and at > now:
        raise InvalidValue("time", at.isoformat(), "is in the future")
    if quantity > CREDITS_MAX:
        raise InvalidValue("quantity", quantity, _QUANTITY_RULE)
    return Row(
        line=line, client_id=check_client_id(client_id, field="client"), sku=check_sku(sku), quantity=quantity, at=at
    )


def read_quantity(text: str) -> int:
    """Read a whole number; no sign, no point, no exponent."""
    stripped = text.strip()
    if not _DIGITS.fullmatch(stripped):
        raise InvalidValue("quantity", short(text), _QUANTITY_RULE)
    return int(stripped)


def read_time(text: str) -> datetime:
    """Read an instant in ISO 8601; without a zone it is UTC."""
    try:
        instant = datetime.fromisoformat(text.strip())
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidValue("time", short(text), "must be a time as 2026-11-21T08:00:00Z") from None


def malformed(line: int, refused: InvalidValue | str) -> Malformed:
    """Return why a line is no row, short enough to be shown."""
    reason = str(refused)
    return Malformed(line=line, reason=reason if len(reason) <= _REASON_MAX else f"{reason[:_REASON_MAX]}…")


def short(text: str) -> str:
    """Return a value as far as it is shown."""
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"
