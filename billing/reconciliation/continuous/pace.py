"""How fast the continuous reconciler goes: evenly over a pass, and never beyond its share of one core. Pure.

It does one thing after the other, on whichever server. What it computes itself counts in full; while it waits for a
server half of the time counts, since on a busy machine most of that is waiting for a turn. So it takes its share of a
core itself, and twice that of any server's at the very most (L9). Where the share is too small for a pass, the pass
takes longer. Times are monotonic seconds.
"""

from __future__ import annotations

from typing import Final

#: Work, in seconds, that may be saved up while there was nothing to do.
_SAVED_MAX: Final = 1.0
#: How much of the time counts in which a server was waited for.
_WAITING: Final = 0.5


class Schedule:
    """Spreads the clients of a pass evenly over its length."""

    def __init__(self, pass_seconds: float) -> None:
        self._pass_seconds = pass_seconds
        self._began: float | None = None
        self._clients = self._done = 0

    def begin(self, now: float, clients: int, *, done: int = 0) -> None:
        """Begin a pass over about so many clients, or go on with one of which another worker has `done` a part."""
        self._began, self._clients, self._done = now, clients, done

    def may_begin(self, now: float) -> bool:
        """Return whether the next pass may begin: one pass length after the last one did."""
        return self._began is None or now - self._began >= self._pass_seconds

    def due(self, now: float, done: int) -> bool:
        """Return whether more than the `done` clients of this pass should have been read by now."""
        elapsed = 0.0 if self._began is None else now - self._began
        return (done - self._done) * self._pass_seconds <= self._clients * elapsed


class Share:
    """Holds the time at work to a share of all time."""

    def __init__(self, percent: int) -> None:
        self._share = percent / 100
        self._saved, self._saved_at = _SAVED_MAX * self._share, 0.0

    def is_left(self, now: float) -> bool:
        """Return whether the share allows any work now."""
        self._earn(now)
        return self._saved > 0

    def worked(self, now: float, *, computed: float, waited: float) -> float:
        """Take work from what is saved up, and return what it counted for. A long slice makes a longer pause."""
        cost = computed + waited * _WAITING
        self._earn(now)
        self._saved -= cost
        return cost

    def _earn(self, now: float) -> None:
        earned = max(0.0, now - self._saved_at) * self._share
        self._saved, self._saved_at = min(_SAVED_MAX, self._saved + earned), now
