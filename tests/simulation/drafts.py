"""What the hold of each run says that it costs, counted from the verbs that say so: what a reaper has to charge (L3).

A draft is what was recorded as soon as Redis was told. It is the declared default before that, and again where another
attempt took the hold over or Redis lost what it was told.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from billing.credits.values import StoredHold
from billing.events.usage_event import decode_draft
from tests.simulation.broken import LawBroken


class Drafts:
    """The drafts by run, in credits."""

    def __init__(self) -> None:
        self._now: dict[uuid.UUID, int] = {}
        #: What Redis was asked to stage, whether it did or not.
        self._asked: dict[uuid.UUID, int] = {}
        #: What a reaper was shown.
        self._shown: dict[uuid.UUID, int] = {}
        #: Settlements that are no worker's, and what each charged.
        self.reaped: dict[str, int] = {}

    def drawn(self, run_id: uuid.UUID, lines: bytes) -> None:
        """Remember the draft that a hold has now."""
        self._now[run_id] = credits_of(lines)

    def staged(self, run_id: uuid.UUID, lines: bytes, *, taken: bool) -> None:
        """Remember what Redis was asked to stage, and whether it has it."""
        self._asked[run_id] = credits_of(lines)
        if taken:
            self._now[run_id] = self._asked[run_id]

    def lost(self, held: Iterable[StoredHold]) -> None:
        """Remember what is left of all drafts after a loss."""
        self._now = {hold.run_id: credits_of(hold.lines) for hold in held}

    def shown(self, held: Iterable[StoredHold]) -> None:
        """Remember what a reaper decides by."""
        for hold in held:
            self._shown[hold.run_id] = self._now[hold.run_id]

    def check_recorded(self, run_id: uuid.UUID, credits_: int) -> None:
        """Check that what a body recorded was told to Redis, which answered."""
        if self._asked.get(run_id) != credits_:
            raise LawBroken(f"L3: run {run_id} recorded {credits_} credits, and {self._asked.get(run_id)} were staged")

    def charged(self, run_id: uuid.UUID, settlement_id: str, credits_: int) -> None:
        """Check what a reaper charges."""
        if credits_ != self._shown.get(run_id):
            raise LawBroken(f"L3: run {run_id} was reaped for {credits_}, and its draft is {self._shown.get(run_id)}")
        self.reaped[settlement_id] = credits_


def credits_of(lines: bytes) -> int:
    """Return what a draft comes to."""
    return sum(line.credits for line in decode_draft(lines).lines)
