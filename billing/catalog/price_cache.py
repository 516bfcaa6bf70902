"""A process's copy of the price book, never older than its bound, never waited for longer than a bound (L9).

A copy is renewed after `refresh_seconds`, by a thread of its own: while a copy serves, nobody waits for PostgreSQL, be
it slow, away or hanging, until the copy is `age_max_seconds` old. Past that nobody is rated on old prices: the caller
waits `wait_seconds` at most and gets `Unreachable`. A failure is remembered for a second, so that a thousand tasks do
not each wait for the same timeout. Make a cache after a fork, not before: its thread is not inherited.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from billing.catalog.price_book import PriceBook
from billing.core.clock import Clock
from billing.core.errors import BillingError, Unreachable

logger = logging.getLogger(__name__)

#: How long a failed load is remembered before the server is asked again, and how often `renewed` asks at most.
_PAUSE_SECONDS: Final = 1.0
#: A load that has not ended after so long is given up, and another may begin. What it left behind is a thread and a
#: connection, of which there are never more than so many (L9).
LOAD_SECONDS_MAX: Final = 30.0
LOADS_MAX: Final = 4


class _Load:
    """One load, from the moment at which its thread was started: the book is as old as that."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.ended = threading.Event()


class PriceCache:
    """Serves the price book, at most `age_max_seconds` old. Safe to share between threads."""

    def __init__(
        self,
        load: Callable[[], PriceBook],
        *,
        refresh_seconds: float,
        age_max_seconds: float,
        wait_seconds: float,
        clock: Clock,
    ) -> None:
        self._read, self._clock, self._wait_seconds = load, clock, wait_seconds
        self._refresh_seconds, self._age_max_seconds = min(refresh_seconds, age_max_seconds), age_max_seconds
        self._lock = threading.Lock()  # held for a moment only, never while anything is loaded
        self._copy: tuple[PriceBook, float] | None = None
        self._failure: tuple[Exception, float] | None = None
        self._load: _Load | None = None
        self._loads = 0

    def get(self) -> PriceBook:
        """Return the book, or raise `Unreachable` if no copy that is young enough can be had."""
        book = self._younger_than(self._refresh_seconds)
        if book is not None:
            return book
        book = self._younger_than(self._age_max_seconds)
        if book is None:
            return self._awaited(self._age_max_seconds)
        self._begin()
        return book

    def renewed(self) -> PriceBook:
        """Return the book as it is now: for a SKU that the copy does not know, whose price may be a moment old."""
        return self._younger_than(_PAUSE_SECONDS) or self._awaited(_PAUSE_SECONDS)

    def _awaited(self, seconds: float) -> PriceBook:
        """Wait for a book that was asked for less than `seconds` ago, or by this call. Two loads at most, one bound."""
        asked = self._clock.monotonic()
        deadline = time.monotonic() + self._wait_seconds
        for _ in range(2):  # one that goes on may be too old already; then this call's own
            load = self._begin()
            if load is None:
                break
            if not load.ended.wait(deadline - time.monotonic()):
                message = f"the price book: PostgreSQL has not answered within {self._wait_seconds:g} s"
                with self._lock:
                    self._failure = (Unreachable(message), self._clock.monotonic())
                break
            copy = self._copy
            if copy is not None and (copy[1] >= asked or self._age(copy[1]) < seconds):
                return copy[0]
        book = self._younger_than(self._age_max_seconds)
        if book is not None:
            return book
        raise self._why()

    def _begin(self) -> _Load | None:
        """Return the load that goes on, else begin one; None while a failure is remembered, or too many hang."""
        with self._lock:
            now = self._clock.monotonic()
            if self._failure is not None and now - self._failure[1] < _PAUSE_SECONDS:
                return None
            load = self._load
            if self._loads >= LOADS_MAX or (load is not None and now - load.started < LOAD_SECONDS_MAX):
                return load
            load = self._load = _Load(now)
            self._loads += 1
        try:
            threading.Thread(target=self._run, args=(load,), name="billing-prices", daemon=True).start()
        except RuntimeError as error:
            # The machine has no thread left, or the process ends: as where PostgreSQL is away.
            self._end(load, None, Unreachable(f"the price book: no thread is to be had ({error})"))
        return load

    def _run(self, load: _Load) -> None:
        try:
            book, failure = self._read(), None
        except Exception as error:  # noqa: BLE001 - raised in the thread of whoever has no copy
            book, failure = None, error
        self._end(load, book, failure)

    def _end(self, load: _Load, book: PriceBook | None, failure: Exception | None) -> None:
        with self._lock:
            if book is not None and (self._copy is None or self._copy[1] <= load.started):
                self._copy, self._failure = (book, load.started), None
            elif failure is not None and self._load is load:
                self._failure = (failure, self._clock.monotonic())
            if self._load is load:
                self._load = None
            self._loads -= 1
        load.ended.set()
        if failure is not None:
            logger.warning("billing: the price book could not be renewed: %s", failure)

    def _why(self) -> Exception:
        """Return why there is no copy, as an exception of this caller's own."""
        failure = Unreachable("the price book is not to be had") if self._failure is None else self._failure[0]
        if not isinstance(failure, BillingError):
            return failure
        mine = type(failure)(*failure.args)
        mine.__cause__ = failure
        return mine

    def _younger_than(self, seconds: float) -> PriceBook | None:
        copy = self._copy
        return copy[0] if copy is not None and self._age(copy[1]) < seconds else None

    def _age(self, since: float) -> float:
        return self._clock.monotonic() - since
