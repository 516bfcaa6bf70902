"""The course of one push: when its threads stop, and how long they wait. Every wait and every loop ends (L9)."""

from __future__ import annotations

import random
import threading
from typing import Final

from billing.core.clock import Clock
from billing.sinks.sink import Answer, Reply

#: Calls in a row that nobody answered, after which nobody is taken to listen.
SILENT_MAX: Final = 5
#: Calls of one increment in one push, when Stripe asks for fewer at once.
BUSY_TRIES: Final = 4
BACKOFF_SECONDS: Final = 0.5
BACKOFF_SECONDS_MAX: Final = 8.0


class Course:
    """Shared by the threads of one push."""

    def __init__(self, clock: Clock, *, seconds: float, where: str, backoff_seconds: float = BACKOFF_SECONDS) -> None:
        self._clock, self._where, self._backoff_seconds = clock, where, backoff_seconds
        self._deadline = clock.monotonic() + seconds
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._silent = 0
        #: Why it stopped before it was done; None if it did not.
        self.stopped: str | None = None

    def goes_on(self) -> bool:
        """Whether another call may be made."""
        if not self._ended.is_set() and self._clock.monotonic() > self._deadline:
            self.stop("the time of this push is used up; the next one goes on")
        return not self._ended.is_set()

    def stop(self, reason: str) -> None:
        """Let no thread begin another call; the first reason counts."""
        with self._lock:
            if self.stopped is None:
                self.stopped = reason
        self._ended.set()

    def note(self, reply: Reply) -> None:
        """Stop when every other call would end as this one did."""
        with self._lock:
            self._silent = self._silent + 1 if reply.silent else 0
            silent = self._silent
        if reply.answer is Answer.FORBIDDEN or silent >= SILENT_MAX:
            times = f" ({silent} calls in a row)" if silent else ""
            self.stop(f"Stripe: {self._where!r}: {reply.reason}{times}")

    def wait(self, tries: int) -> bool:
        """Wait before a call is made again after `tries` ones; return whether there is to be another."""
        if tries >= BUSY_TRIES or not self.goes_on():
            return False
        longest = min(BACKOFF_SECONDS_MAX, self._backoff_seconds * 2**tries)
        return not self._ended.wait(random.uniform(longest / 2, longest)) and self.goes_on()  # noqa: S311 - no secret
