"""What the workers of a storm have seen of their tasks: who began, who succeeded, whose answer was not stored."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

#: Files of task ids, one for each process: those that have succeeded, and those that ended outside of their body.
SUCCEEDED, UNANSWERED = "succeeded", "unanswered"
#: Files of deliveries: the task's id, a colon, and when it began, in milliseconds since the Unix epoch.
BEGUN: Final = "begun"


def witnessed(directory: Path, what: str) -> set[str]:
    """Return the ids of all tasks of which this was seen at least once."""
    return {line for path in directory.glob(f"{what}.*") for line in path.read_text().split()}


def begun(directory: Path) -> Mapping[str, Sequence[int]]:
    """Return when each delivery of a task began, by the task's id."""
    found: dict[str, list[int]] = collections.defaultdict(list)
    for path in directory.glob(f"{BEGUN}.*"):
        for line in path.read_text().split():
            task_id, _, at_ms = line.rpartition(":")
            found[task_id].append(int(at_ms))
    return found
