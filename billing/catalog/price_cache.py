"""A worker's copy of the price book, never older than its bound (L9).

A copy is renewed after `refresh_seconds`. If PostgreSQL does not answer then, the copy serves on, so that work goes on
while PostgreSQL is away, until it is `age_max_seconds` old. Past that nobody is rated on old prices: the caller gets
`Unreachable`. While PostgreSQL is away it is asked at most once a second, so that a thousand tasks do not each wait
for the same timeout.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from billing.catalog.price_book import PriceBook
from billing.core.clock import Clock
from billing.core.errors import Unreachable

#: How long a failed load is remembered before the server is asked again, and how often `renewed` asks at most.
_PAUSE_SECONDS: Final = 1.0


class PriceCache:
    """Serves the price book, at most `age_max_seconds` old. Safe to share between threads."""

    def __init__(
        self, load: Callable[[], PriceBook], *, refresh_seconds: float, age_max_seconds: float, clock: Clock
    ) -> None:
        self._load, self._clock = load, clock
        self._refresh_seconds, self._age_max_seconds = min(refresh_seconds, age_max_seconds), age_max_seconds
        self._lock = threading.Lock()
        self._copy: tuple[PriceBook, float] | None = None
        self._failure: tuple[Unreachable, float] | None = None

    def get(self) -> PriceBook:
        """Return the book, or raise `Unreachable` if no copy that is young enough can be had."""
        return self._younger_than(self._refresh_seconds)

    def renewed(self) -> PriceBook:
        """Return the book as it is now: for a SKU that the copy does not know, whose price may be a moment old."""
        return self._younger_than(_PAUSE_SECONDS)

    def _younger_than(self, seconds: float) -> PriceBook:
        copy = self._copy
        if copy is not None and self._age(copy[1]) < seconds:
            return copy[0]
        if copy is not None and self._age(copy[1]) < self._age_max_seconds and self._lock.locked():
            return copy[0]  # another thread is renewing it already
        with self._lock:
            return self._renew(seconds)

    def _renew(self, seconds: float) -> PriceBook:
        copy = self._copy
        if copy is not None and self._age(copy[1]) < seconds:
            return copy[0]
        failure = self._failure
        if failure is None or self._age(failure[1]) >= _PAUSE_SECONDS:
            started = self._clock.monotonic()  # a copy is as old as the beginning of its load
            try:
                book = self._load()
            except Unreachable as error:
                failure = self._failure = (error, self._clock.monotonic())
            else:
                self._copy, self._failure = (book, started), None
                return book
        if copy is not None and self._age(copy[1]) < self._age_max_seconds:
            return copy[0]
        raise Unreachable(*failure[0].args) from failure[0]

    def _age(self, since: float) -> float:
        return self._clock.monotonic() - since
