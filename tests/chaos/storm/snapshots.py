"""Reads the append-only tables again and again while faults are injected; keeps every row that was ever there (L7)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Final, Self

import psycopg

#: PostgreSQL is away: it is asked again after this long.
_AGAIN_SECONDS: Final = 1.0
#: How long a look that goes on is waited for at the end (L9).
_STOP_SECONDS: Final = 60.0


class Snapshots:
    """Every row that `read` ever returned. Use it in a `with` block, which looks every so many seconds."""

    def __init__(self, read: Callable[[], Collection[str]], seconds: float) -> None:
        self._read, self._seconds = read, seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look_again, daemon=True)
        self.seen: set[str] = set()
        self.looks = 0

    def __enter__(self) -> Self:
        """Begin to look, in the background."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look no more."""
        self._stopped.set()
        self._thread.join(_STOP_SECONDS)

    def look(self) -> None:
        """Read once; raises what `read` raises."""
        self.seen.update(self._read())
        self.looks += 1

    def _look_again(self) -> None:
        pause = self._seconds
        while not self._stopped.wait(pause):
            try:
                self.look()
            except psycopg.Error:
                pause = min(_AGAIN_SECONDS, self._seconds)
            else:
                pause = self._seconds
