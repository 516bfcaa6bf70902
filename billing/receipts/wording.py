"""How values of a receipt are written for people, the same in every form. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import UTC, datetime

from billing.admin.receipt_line import ReceiptHead
from billing.core.printable import printable
from billing.receipts.summary import DaySum, GrantSum, IncrementSum, SkuSum, Sum


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


def title(
    client_id: str, start: datetime | None, end: datetime | None, correlation_id: str | None, root_id: str | None
) -> str:
    """Return whose usage it is, of which task or workflow, and from when to when."""
    named = "".join(
        f", {word} {printable(name)}" for word, name in (("task", correlation_id), ("workflow", root_id)) if name
    )
    if start is None and end is None:
        return f"{printable(client_id)}{named}"
    begin = "" if start is None else f"{moment(start)} "
    return f"{printable(client_id)}{named}: {begin}up to {'now' if end is None else moment(end)} (UTC)"


def everything(head: ReceiptHead) -> str:
    """Return the command that writes every line of a receipt, as CSV."""
    named = "".join(
        f" {option}={shlex.quote(name)}"
        for option, name in (("--correlation", head.correlation_id), ("--root", head.root_id))
        if name is not None
    )
    span = f"--from {head.start.isoformat()} --to {head.end.isoformat()}"
    return f"billing receipt {shlex.quote(head.client_id)} {span}{named} --format csv"


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
        case DaySum(day=at):
            return f"{at.day} {at:%B %Y}"
        case GrantSum(grant=grant):
            return payer(grant)
        case IncrementSum(increment_id=number, state=state):
            return f"#{number} {state.replace('_', ' ')}"
        case _:
            return "not yet reported"
