"""A receipt as one JSON document: its head, its lines, its subtotals. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from typing import IO, Any

from billing.admin.receipt_line import ReceiptHead, ReceiptLine
from billing.receipts.summary import Summary, Tally
from billing.receipts.wording import iso


def chunks(head: ReceiptHead, lines: Iterable[ReceiptLine], tally: Tally, spool: IO[str]) -> Iterator[str]:  # noqa: ARG001 - a form's signature
    """Yield the document, a line at a time."""
    start = {
        "client_id": head.client_id,
        "from": iso(head.start),
        "to": iso(head.end),
        "read_at": iso(head.read_at),
        "correlation_id": head.correlation_id,
        "root_id": head.root_id,
    }
    yield json.dumps(start)[:-1] + ', "lines": ['
    between = "\n"
    for line in tally.counting(lines):
        yield between + json.dumps(of_line(line))
        between = ",\n"
    yield '\n], "subtotals": ' + json.dumps(of_summary(tally.summary())) + "}\n"


def of_line(line: ReceiptLine) -> dict[str, Any]:
    """Return a line as JSON has it."""
    return {
        "run_id": str(line.run_id),
        "line": line.line,
        "correlation_id": line.correlation_id,
        "task": line.task,
        "sku": line.sku,
        "quantity": line.quantity,
        "unit": line.unit,
        "price_version": line.price_version,
        "credits_per_unit": line.credits_per_unit,
        "credits": line.credits,
        "grants": [{"grant": grant, "credits": credits_} for grant, credits_ in line.grants.items()],
        "occurred_at": iso(line.occurred_at),
        "late": line.late,
        "mode": line.mode,
        "corrects": line.corrected or None,
        "reason": line.reason or None,
        "increments": [dataclasses.asdict(part) for part in line.reported],
        "not_reported": line.unreported,
        "reporting": line.reporting,
    }


def of_summary(summary: Summary) -> dict[str, Any]:
    """Return the subtotals as JSON has them."""
    found = dataclasses.asdict(summary)
    for counted in found["by_day"]:
        counted["day"] = counted["day"].isoformat()
    return found
