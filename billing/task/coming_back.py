"""The recovering shards that will come back, as PostgreSQL said a while ago: deliveries that are put off ask it seldom.

A shard comes back if a client of the catalog is on it; one without clients is never rebuilt, and who is refused there
is unknown. The same question finds a changed `billing_shards`, so it is asked anew every `AGE_MAX_SECONDS`.
"""

from __future__ import annotations

from typing import Final

from billing.core.clock import Clock

#: How long one answer of the catalog counts for a shard.
AGE_MAX_SECONDS: Final = 60.0


class ComingBack:
    """Shards, and when the catalog last had a client there. Threads may share it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[int, float] = {}

    def add(self, shard: int) -> None:
        """Note that the catalog has a client of this shard, where the settings look for it."""
        self._seen[shard] = self._clock.monotonic()

    def __contains__(self, shard: int) -> bool:
        """Whether the catalog has said so lately."""
        seen = self._seen.get(shard)
        return seen is not None and self._clock.monotonic() - seen < AGE_MAX_SECONDS
