"""What the workers of a storm have seen succeed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

#: Files of task ids that have succeeded, one for each process.
WITNESSED: Final = "succeeded"


def witnessed(directory: Path) -> set[str]:
    """Return the ids of all tasks that have succeeded at least once."""
    return {line for path in directory.glob(f"{WITNESSED}.*") for line in path.read_text().split()}
