"""What libFuzzer says while it runs, read into numbers. Pure."""

from __future__ import annotations

import dataclasses
import re
from typing import Final

_PROGRESS: Final = re.compile(r"^#(\d+)\s+\w+ +(?:cov: (\d+) )?(?:ft: (\d+) )?", re.MULTILINE)
_EXECUTED: Final = re.compile(r"^stat::number_of_executed_units: (\d+)$", re.MULTILINE)
_WRITTEN: Final = re.compile(r"Test unit written to (\S+)$", re.MULTILINE)
_RAISED: Final = re.compile(r"=== Uncaught Python exception: ===\n(.*)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of one target. `edges` and `features` are what its inputs reached; `found` is a file, or empty."""

    executions: int
    edges: int
    features: int
    found: str = ""
    reason: str = ""


def read(printed: str) -> Outcome:
    """Return what the lines of a run add up to."""
    progress = [match.groups(default="0") for match in _PROGRESS.finditer(printed)]
    executed = _EXECUTED.search(printed)
    written, raised = _WRITTEN.search(printed), _RAISED.search(printed)
    # Without an exception it is time, memory, or the end of the interpreter, which libFuzzer names itself.
    summary = next((line for line in printed.splitlines() if line.startswith("SUMMARY: ")), "")
    return Outcome(
        executions=int(executed[1]) if executed else max((int(runs) for runs, _, _ in progress), default=0),
        edges=max((int(edges) for _, edges, _ in progress), default=0),
        features=max((int(features) for _, _, features in progress), default=0),
        found=written[1] if written else "",
        reason=(raised[1] if raised else summary) if written else "",
    )
