"""L3 in the log: each run is there once, as one settlement, with its lines from 0 on, for one client."""

from __future__ import annotations

from collections.abc import Iterator

from billing.reconciliation.facts import LogFacts
from billing.reconciliation.report import Discrepancy, Law


def differences(log: LogFacts) -> Iterator[Discrepancy]:
    """Yield the runs of a client that are not one charge."""
    for run in log.broken_runs:
        found = f"run {run.run_id} has {run.lines} lines, numbered from {run.first_line} to {run.last_line}"
        if len(run.settlements) > 1:
            found += f", of more than one settlement ({', '.join(run.settlements)})"
        row = {"table": "usage_history", "run_id": str(run.run_id)}
        yield Discrepancy(law=Law.ONE_CHARGE.value, client_id=log.client_id, found=found, rows=(row,))
