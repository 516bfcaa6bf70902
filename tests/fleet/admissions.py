"""Every answer that a worker of the fleet gets to a `reserve` is noted, with the time before and after the call.

The clock is the machine's monotonic one, which all processes share: who reads the notes can say what was admitted
while a shard was known to be closed. A file per process, so that no two lines mix.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from pathlib import Path
from typing import Any

from billing.credits.buckets import Buckets
from tests.fleet.tasks import note

#: Set in the environment of a worker whose answers are noted.
VARIABLE = "FLEET_NOTES_ADMISSIONS"
#: What is noted where no answer came.
UNREACHABLE = "UNREACHABLE"
#: The answers by which work starts.
ADMITTED = frozenset({"HELD", "TAKEN_OVER"})


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One call of `reserve`, in nanoseconds of the machine's monotonic clock."""

    client_id: str
    began_ns: int
    ended_ns: int
    outcome: str

    @property
    def admitted(self) -> bool:
        """Whether work may start."""
        return self.outcome in ADMITTED


def connect(directory: Path) -> None:
    """Have each `reserve` of this process, and of its children, noted."""
    reserve = Buckets.reserve

    @functools.wraps(reserve)
    def noted(self: Buckets, hold: Any, **options: Any) -> Any:
        began, outcome = time.monotonic_ns(), UNREACHABLE
        try:
            reply = reserve(self, hold, **options)
            outcome = reply.outcome.value
            return reply
        finally:
            line = f"{hold.client_id} {began} {time.monotonic_ns()} {outcome}"
            note(directory, f"admissions.{os.getpid()}", line)

    setattr(Buckets, "reserve", noted)  # noqa: B010 - for the type checker


def answers(directory: Path) -> list[Answer]:
    """Return what all processes have noted."""
    found = []
    for path in directory.glob("admissions.*"):
        for line in path.read_text().splitlines():
            client_id, began, ended, outcome = line.split()
            found.append(Answer(client_id=client_id, began_ns=int(began), ended_ns=int(ended), outcome=outcome))
    return found
