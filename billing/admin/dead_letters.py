"""Dead letters: what the log refused, looked at, written after all, or put aside. None is ever deleted."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from billing.admin.access import runtime_for
from billing.connections import postgres
from billing.core.settings import Settings
from billing.fulfillment import letters
from billing.fulfillment.dead_letters import count_unverified
from billing.fulfillment.letter import DeadLetter, LetterPage, OpenedLetter, Outcome, ReplayedLetter, State
from billing.fulfillment.replaying import ReplayLog, replay
from billing.ledger.locks import waiting_briefly

#: L9: letters that the report of one replay names.
REPLAYED_SHOWN_MAX: Final = 1_000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """What a replay did: how many letters came to what, and the first 1,000 of them, in the order of their ids.

    `left`: open letters that a replay of all has left alone, since their signatures were refused.
    """

    outcomes: Mapping[Outcome, int]
    letters: Sequence[ReplayedLetter]
    left: int = 0

    @property
    def refused(self) -> int:
        """How many letters were refused again, and stay as they were."""
        return self.outcomes.get("refused", 0)


def dead_letters(
    settings: Settings,
    *,
    state: State | None = "open",
    reason: str = "",
    queue: str = "",
    before: int | None = None,
    limit: int = 50,
) -> LetterPage:
    """Return the newest letters in a state (None: in any), and how many there are by state and by reason.

    `reason`: only those with this text in theirs; `before`: only older ones than this letter. Raises `InvalidValue`.
    """
    with postgres.reaching(settings), runtime_for(settings).engine.connect() as connection:
        return letters.page(connection, state=state, reason=reason, queue=queue, before=before, limit=limit)


def dead_letter(settings: Settings, letter_id: int) -> OpenedLetter:
    """Return one letter, with its bytes exactly as they came. Raises `InvalidValue`."""
    with postgres.reaching(settings), runtime_for(settings).engine.connect() as connection:
        return letters.open_letter(connection, letter_id)


def replay_dead_letters(
    settings: Settings,
    letter_ids: Sequence[int] | None = None,
    *,
    reason: str = "",
    discarded: bool = False,
    unverified: bool = False,
    tell: Callable[[Sequence[ReplayedLetter]], object] = lambda _: None,
) -> Replay:
    """Write letters into the usage history as if they came now: those named, or all open ones with a text in theirs.

    Safe to repeat, and to be killed at: each batch is written and marked in one transaction, after which `tell` gets
    it. `discarded`: those that were discarded, too; `unverified`: those that were refused for their signature, and may
    be forged. Raises `InvalidValue` for what may not be replayed, before anything is written, and `Unreachable`, after
    which the rest waits for the next call.
    """
    runtime = runtime_for(settings)
    outcomes: collections.Counter[Outcome] = collections.Counter()
    shown: list[ReplayedLetter] = []
    log = ReplayLog(lambda: postgres.connect(settings), shards=settings.shards, discarded=discarded)
    try:
        with postgres.reaching(settings):
            for done in replay(
                log,
                runtime.engine,
                settings,
                letter_ids=letter_ids,
                reason=reason,
                discarded=discarded,
                unverified=unverified,
            ):
                outcomes.update(each.outcome for each in done)
                shown += done[: REPLAYED_SHOWN_MAX - len(shown)]
                tell(done)
            left = 0
            if letter_ids is None and not unverified:
                with runtime.engine.connect() as connection:
                    left = count_unverified(connection)
    finally:
        log.close()
    return Replay(outcomes=dict(outcomes), letters=shown, left=left)


def discard_dead_letters(settings: Settings, letter_ids: Sequence[int], *, reason: str) -> Sequence[DeadLetter]:
    """Put letters aside for good, all of them or none; return them. Each is kept with its bytes, and with the reason.

    One that was discarded before keeps its first reason. Raises `InvalidValue` for an id that is no letter's and for a
    letter that was replayed, and `Locked` where somebody is replaying one.
    """
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.begin() as connection, waiting_briefly(connection):
        return letters.discard(connection, letter_ids, reason=reason)
