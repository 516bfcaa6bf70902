"""A clock that a test moves. It begins at the present and stands still."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class TestClock:
    """Wall time and a monotonic time that only `advance` moves."""

    __test__ = False

    def __init__(self, start: datetime | None = None) -> None:
        self._start = self._now = start or datetime.now(UTC)

    def now(self) -> datetime:
        """Return the instant, aware, in UTC."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds since the start."""
        return (self._now - self._start).total_seconds()

    def advance(self, time: timedelta) -> None:
        """Let time pass."""
        self._now += time
