"""What dry runs have counted: per task, how many would have been admitted, how many denied and why, at which cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from billing.admin.access import runtime_for
from billing.core.settings import Settings
from billing.task.counting import ADMITTED, CREDITS


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DryRuns:
    """The dry runs of a task: `runs` = `admitted` + all of `denied`, by reason. `credits`: the cost of successes."""

    task: str
    runs: int
    admitted: int
    denied: Mapping[str, int]
    credits: int


def dry_runs(settings: Settings, *, reset: bool = False) -> Sequence[DryRuns]:
    """Return what was counted, by the names of tasks; with `reset` the counts begin anew. Raises `Unreachable`."""
    buckets = runtime_for(settings).buckets
    found = summed(buckets.counts())
    if reset:
        buckets.forget_counts()
    return found


def summed(counts: Mapping[str, int]) -> Sequence[DryRuns]:
    """Return counts by field (`<answer>:<task>`) as they are shown. Pure."""
    tasks: dict[str, dict[str, int]] = {}
    for field, number in counts.items():
        what, _, task = field.partition(":")
        tasks.setdefault(task, {})[what] = number
    made = []
    for task, numbers in sorted(tasks.items()):
        credits_, admitted = numbers.pop(CREDITS, 0), numbers.pop(ADMITTED, 0)
        denied = dict(sorted(numbers.items()))
        runs = admitted + sum(denied.values())
        made.append(DryRuns(task=task, runs=runs, admitted=admitted, denied=denied, credits=credits_))
    return made
