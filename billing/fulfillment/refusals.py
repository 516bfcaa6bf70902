"""When so many events are refused that something other than the events must be wrong. Pure.

Two caps, so that a bad deploy cannot empty the queues into the dead letters: refusals in a row, and their share of the
last messages. A share of fewer messages than that counts as one of all of them, so that a handful of refusals among
few events stops nobody. Of one client at most half of what a cap allows is counted: a client that PostgreSQL has lost
must not stop the consumer for all others (L10), and what hits three clients is no fault of one.

What is refused for its signature counts until one message has come whose signature holds. Until then the keys may be
wrong, and everybody's events would go to the dead letters; after it somebody else is sending, who must not be able to
stop those that sign (L10). A flood costs what it takes to store it.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Final

from billing.core.settings import Settings
from billing.fulfillment.delivery import Delivered, Poison

_SO: Final = (
    "something other than the events must be wrong; what is not written stays in its queue "
    "(see: billing dead-letters list)"
)


class Refusals:
    """Counts what was refused, batch by batch."""

    def __init__(self, settings: Settings) -> None:
        self._run_max = settings.dead_letter_run_max
        self._window = settings.dead_letter_window
        self._percent_max = settings.dead_letter_percent_max
        self._in_a_row = 0
        #: Of those in a row, whose they are.
        self._run_of: collections.Counter[str] = collections.Counter()
        #: Whether a message has come that was not forged: the keys are right.
        self._proven = False
        #: Messages, refused ones, and whose these are, of the last batches, which are a window, or a batch more.
        self._batches: collections.deque[tuple[int, int, Mapping[str, int]]] = collections.deque()
        self._messages = self._refused = 0
        self._refused_of: collections.Counter[str] = collections.Counter()

    def note(self, batch: Sequence[Delivered], refused: int, refused_of: Mapping[str, int]) -> str | None:
        """Count a batch that was written; return why to stop, if so.

        `refused` of it are dead letters, and `refused_of` says how many of those are one client's.
        """
        forged = forged_of(batch) if refused else 0
        self._proven = self._proven or forged < len(batch)
        if forged and self._proven:
            batch, refused = [each for each in batch if not _is_forged(each)], refused - forged
            if not batch:
                return None
        return self._note_run(batch, refused, refused_of) or self._note_share(len(batch), refused, refused_of)

    def _note_run(self, batch: Sequence[Delivered], refused: int, refused_of: Mapping[str, int]) -> str | None:
        poison = next(
            (at for at, each in enumerate(reversed(batch)) if not isinstance(each.decoded, Poison)), len(batch)
        )
        if poison == len(batch) or refused >= len(batch):
            self._in_a_row += len(batch)
            self._run_of.update(refused_of)
        else:
            self._in_a_row = poison
            self._run_of.clear()
        counted = _counted(self._in_a_row, self._run_of, (self._run_max - 1) / 2)
        if counted < self._run_max:
            return None
        seen = f"{self._in_a_row} events in a row were refused (at most {self._run_max})"
        return f"billing_dead_letter_run_max: {seen}: {_SO}"

    def _note_share(self, messages: int, refused: int, refused_of: Mapping[str, int]) -> str | None:
        self._batches.append((messages, refused, refused_of))
        self._messages += messages
        self._refused += refused
        self._refused_of.update(refused_of)
        while self._messages - self._batches[0][0] >= self._window:
            gone, gone_refused, gone_of = self._batches.popleft()
            self._messages -= gone
            self._refused -= gone_refused
            self._refused_of -= collections.Counter(gone_of)
        of = max(self._messages, self._window)
        allowed = self._percent_max * of / 100
        if _counted(self._refused, self._refused_of, allowed / 2) <= allowed:
            return None
        seen = (
            f"{self._refused} of the last {self._messages} events were refused (at most {self._percent_max} % of {of})"
        )
        return f"billing_dead_letter_percent_max: {seen}: {_SO}"


def forged_of(batch: Sequence[Delivered]) -> int:
    """Return how many messages were refused for their signature."""
    return sum(map(_is_forged, batch))


def _is_forged(message: Delivered) -> bool:
    return isinstance(message.decoded, Poison) and message.decoded.forged


def _counted(refused: int, of: Mapping[str, int], most: float) -> float:
    """Return how many refusals count when each client's count as at most `most`."""
    return refused - sum(max(0.0, count - most) for count in of.values())
