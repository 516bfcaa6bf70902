"""When so many events are refused that something other than the events must be wrong. Pure.

Two caps, so that a bad deploy cannot empty the queues into the dead letters: refusals in a row, and their share of the
last messages. A share of fewer messages than that counts as one of all of them, so that a handful of refusals among
few events stops nobody.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
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
        #: Messages and refused ones of the last batches, which together are a window, or a batch more.
        self._batches: collections.deque[tuple[int, int]] = collections.deque()
        self._messages = self._refused = 0

    def note(self, batch: Sequence[Delivered], refused: int) -> str | None:
        """Count a batch that was written, `refused` of it as dead letters; return why to stop, if so."""
        return self._note_run(batch, refused) or self._note_share(len(batch), refused)

    def _note_run(self, batch: Sequence[Delivered], refused: int) -> str | None:
        poison = next(
            (at for at, each in enumerate(reversed(batch)) if not isinstance(each.decoded, Poison)), len(batch)
        )
        if poison == len(batch) or refused >= len(batch):
            self._in_a_row += len(batch)
        else:
            self._in_a_row = poison
        if self._in_a_row < self._run_max:
            return None
        seen = f"{self._in_a_row} events in a row were refused (at most {self._run_max})"
        return f"billing_dead_letter_run_max: {seen}: {_SO}"

    def _note_share(self, messages: int, refused: int) -> str | None:
        self._batches.append((messages, refused))
        self._messages += messages
        self._refused += refused
        while self._messages - self._batches[0][0] >= self._window:
            gone, gone_refused = self._batches.popleft()
            self._messages -= gone
            self._refused -= gone_refused
        of = max(self._messages, self._window)
        if self._refused * 100 <= self._percent_max * of:
            return None
        seen = (
            f"{self._refused} of the last {self._messages} events were refused (at most {self._percent_max} % of {of})"
        )
        return f"billing_dead_letter_percent_max: {seen}: {_SO}"
