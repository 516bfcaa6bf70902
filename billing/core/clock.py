"""The clock is passed in, so that tests and the simulator own time. Aware UTC only."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Wall time and a monotonic time."""

    def now(self) -> datetime:
        """Return the current instant, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start that never go back."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the current instant, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return `time.monotonic()`."""
        return time.monotonic()


def behind(clock: Clock, ask: Callable[[], datetime]) -> timedelta:
    """Return by how much a clock is behind the one that `ask` reads; below 0, by how much it is ahead.

    The answer was made somewhere between asking and hearing it: what that leaves open is not counted.
    """
    before = clock.now()
    theirs = ask()
    after = clock.now()
    return max(theirs - after, timedelta()) - max(before - theirs, timedelta())


def to_milliseconds(instant: datetime) -> int:
    """Return whole milliseconds since the Unix epoch, computed in integers."""
    delta = instant - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000 + delta.microseconds // 1_000


def from_milliseconds(milliseconds: int) -> datetime:
    """Return the aware UTC instant that is `milliseconds` after the Unix epoch."""
    seconds, rest = divmod(milliseconds, 1_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest * 1_000)
