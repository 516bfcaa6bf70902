"""Names that were noted lately: what was done in vain is not done again with each call. Bounded (L9); pure.

One that is forgotten early is only done sooner again.
"""

from __future__ import annotations

from collections import OrderedDict

from billing.core.clock import Clock


class Lately:
    """Names, and when each was noted last. Threads may share it."""

    def __init__(self, clock: Clock, *, seconds: float, count: int) -> None:
        self._clock, self._seconds, self._count = clock, seconds, count
        self._noted: OrderedDict[str, float] = OrderedDict()

    def add(self, name: str) -> None:
        """Note a name; the one that was noted first makes room."""
        self._noted.pop(name, None)
        self._noted[name] = self._clock.monotonic()
        if len(self._noted) > self._count:
            self._noted.popitem(last=False)

    def __contains__(self, name: str) -> bool:
        """Whether a name was noted within the time."""
        noted = self._noted.get(name)
        return noted is not None and self._clock.monotonic() - noted < self._seconds
