"""Shows what came of a replay: a table of clients, the lines that were none, the laws. Pure."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from billing.workload.replay import Outcome
from billing.workload.standing import as_json, clients_table, largest, laws_table, summary, total


def render(outcome: Outcome) -> RenderableType:
    """Return everything that a replay has to show at its end."""
    account = outcome.account
    lines = [Text(f"line {entry.line}: {entry.reason}", "yellow") for entry in account.first_malformed]
    more = account.malformed - len(account.first_malformed)
    lines += [Text(f"… and {more:,} more malformed lines", "yellow")] if more else []
    lines += [Text(f"failed: {failed}", "yellow") for failed in account.first_failed]
    return Group(clients_table(largest(outcome.ended.standings)), *lines, laws_table(outcome.ended.findings))


def last_line(outcome: Outcome) -> str:
    """Return what it all comes to."""
    account = outcome.account
    return summary(outcome.ended.findings, f"every line is accounted for: {account.sentence()}")


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Return the outcome as JSON has it: sums and the largest clients, as in the table."""
    account, standings = outcome.account, outcome.ended.standings
    return {
        "file": str(outcome.recording.path),
        "digest": outcome.recording.digest,
        "ok": outcome.ok,
        "rows": account.lines,
        "charged": account.charged,
        "refused": account.refused,
        "failed": account.failed,
        "malformed": account.malformed,
        "known_before": account.known,
        "malformed_lines": [dataclasses.asdict(entry) for entry in account.first_malformed],
        "failures": account.first_failed,
        "all": dataclasses.asdict(total(standings)),
        "clients": as_json(largest(standings)),
        "findings": [dataclasses.asdict(found) for found in outcome.ended.findings],
    }
