"""A dead letter as an operator sees it, and what a replay made of it. Pure values."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, Literal

State = Literal["open", "replayed", "discarded"]
STATES: Final[tuple[State, ...]] = ("open", "replayed", "discarded")

#: What a replay makes of a letter. `refused`: it stays as it was, with its new reason; `discarded`: somebody discarded
#: it meanwhile; `dropped`: a dry run of an unknown client, which no log has.
Outcome = Literal["written", "duplicate", "marker", "dropped", "refused", "discarded"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetter:
    """A message that the log refused. `bytes` is its length."""

    letter_id: int
    state: State
    #: Why it was refused last, and how often it was.
    reason: str
    refusals: int
    queue: str
    bytes: int
    received_at: datetime
    refused_at: datetime
    #: When it was replayed or discarded, and what became of it or why.
    ended_at: datetime | None
    remark: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OpenedLetter:
    """A letter with its bytes, exactly as they came, and their SHA-256."""

    letter: DeadLetter
    digest: bytes
    body: bytes


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LetterPage:
    """Letters, newest first, and what all that were asked for add up to."""

    letters: Sequence[DeadLetter]
    #: How many letters there are by state, whatever the page leaves out.
    states: Mapping[State, int]
    #: How many there are by reason, values left out; the most frequent first, and not all of them.
    reasons: Mapping[str, int]
    #: Whether there are older ones than the last of this page.
    more: bool


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ReplayedLetter:
    """What a replay made of one letter. `reason` says why it was refused again."""

    letter_id: int
    #: What the letter was before: `replayed` where this was not the first replay.
    before: State
    outcome: Outcome
    run_id: uuid.UUID | None = None
    reason: str = ""
