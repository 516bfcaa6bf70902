"""What dry runs have counted, in memory."""

from __future__ import annotations

from collections.abc import Mapping

from billing.credits.dry_runs import FIELDS_MAX
from billing.credits.twin.memory import InMemory, atomic


class Counting(InMemory):
    """The counts of a fleet."""

    @atomic
    def count(self, addition_id: str, counts: Mapping[str, int]) -> None:
        """Add to the counts, by field, once per addition."""
        counted, additions = self._memory.counted, self._memory.additions
        if addition_id in additions:
            return
        additions.add(addition_id)
        for field, number in counts.items():
            if field in counted or len(counted) < FIELDS_MAX:
                counted[field] = counted.get(field, 0) + number

    @atomic
    def counts(self) -> dict[str, int]:
        """Return all counts by field."""
        return dict(self._memory.counted)

    @atomic
    def forget_counts(self) -> None:
        """Begin anew."""
        self._memory.counted.clear()
