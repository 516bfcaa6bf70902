"""The course of one push: when its threads stop, and how long they wait. Every wait and every loop ends (L9)."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Final

from billing.core.clock import Clock
from billing.sinks.sink import Answer, Reply
from billing.sinks.sync.calling.budget import Budget, Wait, await_turn

#: Calls in a row that nobody answered, after which nobody is taken to listen.
SILENT_MAX: Final = 5
#: Calls of one increment in one push, when Stripe asks for fewer at once.
BUSY_TRIES: Final = 4
BACKOFF_SECONDS: Final = 0.5
BACKOFF_SECONDS_MAX: Final = 8.0


class Course:
    """Shared by the threads of one push. `wait` and `between` are real waiting and chance, unless others are given."""

    def __init__(
        self,
        clock: Clock,
        *,
        seconds: float,
        where: str,
        backoff_seconds: float = BACKOFF_SECONDS,
        wait: Wait | None = None,
        between: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._clock, self._where, self._backoff_seconds = clock, where, backoff_seconds
        self._deadline = clock.monotonic() + seconds
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._wait: Wait = wait or self._ended.wait
        self._between = between
        self._silent = 0
        #: Why it stopped before it was done; None if it did not.
        self.stopped: str | None = None
        #: Meter → why nothing more is sent to it.
        self.refused: dict[str, str] = {}
        #: Client → why nothing more of one of its meters is sent.
        self.held: dict[str, str] = {}

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

    def refuse(self, event_name: str, reason: str) -> None:
        """Let no thread begin another call for a meter."""
        with self._lock:
            self.refused.setdefault(event_name, reason)

    def hold(self, client_id: str, reason: str) -> None:
        """Say that a client is told nothing for now; the first reason counts."""
        with self._lock:
            self.held.setdefault(client_id, reason)

    def note(self, event_name: str, reply: Reply) -> None:
        """Stop when every other call would end as this one did; those of a meter that is refused are its own matter."""
        with self._lock:
            self._silent = self._silent + 1 if reply.silent else 0
            silent = self._silent
        if silent >= SILENT_MAX or (reply.answer is Answer.FORBIDDEN and event_name not in self.refused):
            times = f" ({silent} calls in a row)" if silent else ""
            self.stop(f"Stripe: {self._where!r}: {reply.reason}{times}")

    def turn(self, budget: Budget | None) -> bool:
        """Wait until the fleet's rate allows a call; return whether it is to be made."""
        if await_turn(budget, self._clock, self._wait, self.goes_on):
            return True
        self.stop("the machine is too slow to keep to the rate of calls")
        return False

    def wait(self, tries: int) -> bool:
        """Wait before a call is made again after `tries` ones; return whether there is to be another."""
        if tries >= BUSY_TRIES or not self.goes_on():
            return False
        longest = min(BACKOFF_SECONDS_MAX, self._backoff_seconds * 2**tries)
        self._wait(self._between(longest / 2, longest))
        return self.goes_on()
