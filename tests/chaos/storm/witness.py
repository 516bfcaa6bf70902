"""What the workers of a storm have seen of their tasks: who succeeded, and whose answer could not be stored."""

from __future__ import annotations

from pathlib import Path

#: Files of task ids, one for each process: those that have succeeded, and those that ended outside of their body.
SUCCEEDED, UNANSWERED = "succeeded", "unanswered"


def witnessed(directory: Path, what: str) -> set[str]:
    """Return the ids of all tasks of which this was seen at least once."""
    return {line for path in directory.glob(f"{what}.*") for line in path.read_text().split()}
