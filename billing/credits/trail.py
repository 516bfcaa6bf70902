"""The trail of each shard: notes on deliveries that were refused, put off, given back or expired. Best effort.

It holds no money: a Redis that loses it loses the reasons, and no bucket or hold is looked at. What a note says is up
to who writes it. One that is added again after a lost answer stands there twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from billing.core.errors import Retryable
from billing.credits.calling import Calling
from billing.credits.scripts import Command, slices

#: L9: the newest notes of a shard that are kept, give or take what a stream trims at once.
NOTES_MAX: Final = 1_000
_SLICE: Final = 200


class Trail(Calling):
    """The trail of each shard."""

    def add_notes(self, notes: Sequence[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """Add notes, each to the trail of its shard; return those that are to be added later.

        What is refused for good is forgotten: it is no money.
        """
        left: list[tuple[int, bytes]] = []
        commands: list[Command] = [
            ("XADD", self._keys[shard].trail, "MAXLEN", "~", NOTES_MAX, "*", "n", note) for shard, note in notes
        ]
        waiting = iter(notes)
        for part in slices(commands, _SLICE):
            for answer, note in zip(self._scripts.run_each(part), waiting, strict=False):
                left += [note] if isinstance(answer, Retryable) else []
        return left

    def notes(self, shard: int) -> list[bytes]:
        """Return the notes of a shard's trail, oldest first."""
        entries = self._scripts.run(("XRANGE", self._keys[shard].trail, "-", "+", "COUNT", 2 * NOTES_MAX))
        return [fields[b"n"] if isinstance(fields, Mapping) else fields[1] for _, fields in entries]
