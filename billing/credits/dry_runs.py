"""What dry runs have counted, for the whole fleet: one bounded hash beside the buckets of shard 0.

It holds no money: a Redis that loses it loses a statistic, and no bucket or hold is looked at. An addition may be sent
again after a lost answer: it counts once by its id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from billing.credits.calling import Calling

#: L9: fields of the hash; a task has one per answer, and one for credits.
FIELDS_MAX: Final = 10_000
#: How long an addition is remembered; whoever got no answer asks again within seconds.
_REMEMBERED_MS: Final = 3_600_000


class DryRunCounts(Calling):
    """The counts of the fleet."""

    def count(self, addition_id: str, counts: Mapping[str, int]) -> None:
        """Add to the counts, by field, once per addition. Raises `Unreachable`."""
        key = self._keys[0].dry_runs
        words: list[str | int] = [word for pair in counts.items() for word in pair]
        self._call("count", (key, f"{key}:{addition_id}"), FIELDS_MAX, _REMEMBERED_MS, *words)

    def counts(self) -> dict[str, int]:
        """Return all counts by field. Raises `Unreachable`."""
        found: Any = self._scripts.run(("HGETALL", self._keys[0].dry_runs))
        pairs = found.items() if isinstance(found, Mapping) else zip(found[::2], found[1::2], strict=True)
        return {field.decode(): int(number) for field, number in pairs if field != b"fields"}

    def forget_counts(self) -> None:
        """Begin anew."""
        self._scripts.run(("DEL", self._keys[0].dry_runs))
