"""How values of a receipt are written for people, the same in every form. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from billing.receipts.summary import GrantSum, IncrementSum, SkuSum, Sum


def printable(text: str) -> str:
    """Return text from outside with what does not print, or prints backwards, written as an escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def iso(instant: datetime) -> str:
    """Return an instant in UTC to the millisecond, as ISO 8601."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock(instant: datetime) -> str:
    """Return the time of day of an instant in UTC."""
    return instant.astimezone(UTC).strftime("%H:%M:%S")


def day(instant: datetime) -> str:
    """Return the UTC day of an instant, as `21 November 2026`."""
    at = instant.astimezone(UTC)
    return f"{at.day} {at:%B %Y}"


def moment(instant: datetime) -> str:
    """Return the minute of an instant in UTC, or its day where it is a midnight."""
    at = instant.astimezone(UTC)
    return day(at) if (at.hour, at.minute, at.second, at.microsecond) == (0, 0, 0, 0) else f"{day(at)}, {clock(at)}"


def payers(grants: Mapping[int, int]) -> str:
    """Return who paid how much, as `grant 12: 30, debt: 15`."""
    return ", ".join(f"{payer(grant)}: {credits_:,}" for grant, credits_ in grants.items())


def payer(grant: int) -> str:
    """Return what a grant is called; grant 0 is debt."""
    return f"grant {grant}" if grant else "debt"


def label(counted: Sum) -> str:
    """Return what a subtotal is of."""
    match counted:
        case SkuSum(sku=sku, unit=unit):
            return f"{printable(sku)} ({printable(unit)})" if unit else printable(sku)
        case GrantSum(grant=grant):
            return payer(grant)
        case IncrementSum(increment_id=number, state=state):
            return f"#{number} {state}"
        case _:
            return "not yet reported"
