"""The trail of each shard, in memory."""

from __future__ import annotations

from collections.abc import Sequence

from billing.credits.trail import NOTES_MAX
from billing.credits.twin.memory import InMemory, atomic


class Trail(InMemory):
    """The trail of each shard."""

    @atomic
    def add_notes(self, notes: Sequence[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """Add notes, each to the trail of its shard."""
        for shard, note in notes:
            kept = self._memory.notes.setdefault(shard, [])
            kept.append(note)
            del kept[:-NOTES_MAX]
        return []

    @atomic
    def notes(self, shard: int) -> list[bytes]:
        """Return the notes of a shard's trail, oldest first."""
        return list(self._memory.notes.get(shard, []))
