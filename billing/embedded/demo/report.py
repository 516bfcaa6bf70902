"""Shows the demo's end: a table per client, Stripe's units in it, the laws, and where the receipts are. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from billing.receipts import Receipt
from billing.workload.ending import Ended
from billing.workload.standing import as_json as standings_json
from billing.workload.standing import clients_table, laws_table, total


def render(ended: Ended, receipts: Sequence[Receipt]) -> RenderableType:
    """Return everything that the demo has to show at its end."""
    lines = [_receipt_line(receipt) for receipt in receipts]
    return Group(clients_table(ended.standings), laws_table(ended.findings), *lines)


def as_json(ended: Ended, receipts: Sequence[Receipt]) -> dict[str, Any]:
    """Return the same for programs."""
    return {
        "ok": ended.ok,
        "clients": standings_json(ended.standings),
        "all": dataclasses.asdict(total(ended.standings)),
        "findings": [dataclasses.asdict(found) for found in ended.findings],
        "receipts": [{"path": str(one.path), "lines": one.lines, "credits": one.credits} for one in receipts],
    }


def _receipt_line(receipt: Receipt) -> Text:
    return Text(f"receipt  {receipt.path}  {receipt.lines:,} lines, {receipt.credits:,} credits", "dim")
