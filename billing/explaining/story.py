"""The story of one task, as it is told: one sentence, then what happened, step by step. Pure values."""

from __future__ import annotations

import dataclasses
import uuid
from datetime import datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """Something that happened, or that is so. `at` is None where nobody noted when; `run_id` says to which run."""

    at: datetime | None
    what: str
    detail: str
    run_id: uuid.UUID | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Story:
    """What is known of one task: `verdict` is one sentence, `steps` are in the order in which they happened.

    `task_id` is what was asked for, a run's id too. `client_id` is empty where nobody says who pays. `unanswered` names
    each source that did not answer: what it knows is missing here. `run_ids`: the runs that there were, oldest first.
    """

    task_id: str
    client_id: str
    verdict: str
    steps: tuple[Step, ...]
    unanswered: tuple[str, ...] = ()
    run_ids: tuple[uuid.UUID, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every source has answered."""
        return not self.unanswered
