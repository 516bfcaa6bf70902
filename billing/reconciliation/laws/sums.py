"""The log and what was written with it in the same transactions: rollups by SKU and hour, sums by grant, corrections.

All of it is of one snapshot, so that there is no moment at which it may differ.
"""

from __future__ import annotations

from collections.abc import Iterator

from billing.reconciliation.facts import LogFacts, RollupRow, UnpaidLine
from billing.reconciliation.report import Discrepancy, Law, such_rows


def differences(log: LogFacts) -> Iterator[Discrepancy]:
    """Yield what differs between a client's log, rollups and grant sums."""
    if log.differing_rollups:
        rows = tuple(_row(log.client_id, row) for row in log.differing_rollups)
        first = log.differing_rollups[0]
        found = (
            f"{first.sku} in the hour {first.hour:%Y-%m-%d %H:%M}: the log has {_said(first.logged_credits)} credits "
            f"for {_said(first.logged_quantity)}, usage_rollup {_said(first.rolled_credits)} for "
            f"{_said(first.rolled_quantity)}" + _returned(first) + such_rows(len(rows))
        )
        yield Discrepancy(law=Law.SUMS.value, client_id=log.client_id, found=found, rows=rows)
    for grant_id in sorted(log.grants.keys() | log.spent.keys()):
        logged, spent = log.grants.get(grant_id, 0), log.spent.get(grant_id, 0)
        if logged != spent:
            found = f"the log's lines say {logged:,}, grant_spent says {spent:,}"
            row = {"table": "grant_spent", "client_id": log.client_id, "grant_id": grant_id, "credits": spent}
            yield Discrepancy(law=Law.SUMS.value, client_id=log.client_id, grant_id=grant_id, found=found, rows=(row,))
    # Line by line: what one line has too much another may have too little.
    if log.unpaid_lines:
        line = log.unpaid_lines[0]
        found = f"line {line.run_id}/{line.line} of the log cost {line.credits:,}, its grants paid {line.paid:,}"
        found += f"; {log.unpaid:,} such lines" if log.unpaid > 1 else ""
        lines = tuple(map(_line, log.unpaid_lines))
        yield Discrepancy(law=Law.SUMS.value, client_id=log.client_id, found=found, rows=lines)
    if log.corrections:
        more = such_rows(len(log.corrections))
        said = "the log and usage_correction differ on its correction, or it exceeds the line"
        found = f"run {log.corrections[0]}: {said}{more}"
        runs = tuple({"table": "usage_correction", "run_id": str(run)} for run in log.corrections)
        yield Discrepancy(law=Law.SUMS.value, client_id=log.client_id, found=found, rows=runs)


def _row(client_id: str, row: RollupRow) -> dict[str, object]:
    return {
        "table": "usage_rollup",
        "client_id": client_id,
        "sku": row.sku,
        "hour": row.hour.isoformat(),
        "log": [row.logged_credits, row.logged_quantity],
        "usage_rollup": [row.rolled_credits, row.rolled_quantity],
    }


def _returned(row: RollupRow) -> str:
    """Say what the two books have of corrections, where that differs."""
    if (row.logged_returned or 0) == (row.rolled_returned or 0):
        return ""
    return f", of corrections {_said(row.logged_returned)} and {_said(row.rolled_returned)} returned"


def _line(line: UnpaidLine) -> dict[str, object]:
    return {
        "table": "usage_history",
        "run_id": str(line.run_id),
        "line": line.line,
        "credits": line.credits,
        "paid by grants": line.paid,
    }


def _said(number: int | None) -> str:
    return "nothing" if number is None else f"{number:,}"
