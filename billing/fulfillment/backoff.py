"""How long to wait after the nth failure in a row: doubling, with a bound and some chance, so that waiters spread."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Counts failures. `chance` returns a number from 0 to 1."""

    def __init__(
        self, *, first_seconds: float, most_seconds: float, chance: Callable[[], float] = random.random
    ) -> None:
        self._first_seconds = first_seconds
        self._most_seconds = most_seconds
        self._chance = chance
        self.failures = 0

    def next_seconds(self) -> float:
        """Count a failure; return how long to wait: between half of its step and the whole of it."""
        # 2^30 is beyond every bound; a larger power would overflow in a long outage.
        step = min(self._most_seconds, self._first_seconds * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return step * (0.5 + 0.5 * self._chance())

    def reset(self) -> None:
        """Forget the failures: it went well."""
        self.failures = 0
