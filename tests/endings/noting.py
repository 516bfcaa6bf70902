"""What becomes of a client's holds is noted by the fleet's processes: given back, lapsed, charged by the reaper."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from billing.credits.buckets import Buckets
from billing.credits.values import ExpireOutcome, ReleaseOutcome
from billing.task.reaper import Reaper
from tests.fleet.tasks import note, noted

RETURNED: Final = "returned"
LAPSED: Final = "lapsed"
REAPED: Final = "reaped"


def connect(directory: Path) -> None:
    """Have this process, and its children, note."""
    _wrap(Buckets, "release", RETURNED, directory, lambda answer: answer is ReleaseOutcome.RELEASED)
    _wrap(Buckets, "expire", LAPSED, directory, lambda answer: answer is ExpireOutcome.EXPIRED)
    _wrap(Reaper, "_settle", REAPED, directory, bool)


def was(directory: Path, what: str, client_id: str) -> bool:
    """Whether it has happened to a hold of a client."""
    return bool(noted(directory, f"{what}.{client_id}"))


def _wrap(owner: type, name: str, what: str, directory: Path, counts: Callable[[Any], bool]) -> None:
    step = getattr(owner, name)

    @functools.wraps(step)
    def noting(self: Any, subject: Any, *rest: Any) -> Any:
        answer = step(self, subject, *rest)
        if counts(answer):
            # A hold of the reaper's, or a client's id.
            note(directory, f"{what}.{getattr(subject, 'client_id', subject)}")
        return answer

    setattr(owner, name, noting)
