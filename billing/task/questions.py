"""Questions to PostgreSQL whose askers wait for a bound, though nothing bounds the answer (L9).

A server that stands still closes no connection. So each question has a thread of its own, one at a time in a process:
whoever asks meanwhile waits for its turn, within the same bound, and not at all once somebody has waited in vain. Make
it after a fork, not before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from billing.core.apart import call_apart
from billing.core.clock import Clock
from billing.core.errors import Unreachable

T = TypeVar("T")

#: A question that has not ended after so long is given up, and another may begin. What it left behind is a thread and a
#: connection of the pool, which come back with the answer; the pool's size bounds how many there ever are (L9).
QUESTION_SECONDS_MAX: Final = 30.0


class _Question:
    """One that goes on, since a monotonic instant."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.ended = threading.Event()
        self.is_late = False


class Questions:
    """Asks for the threads of one process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # held for a moment only, never while anything is asked
        self._going: _Question | None = None

    def ask(self, question: Callable[[], T], *, seconds: float) -> T:
        """Return what the question returns, or raise what it raises; `Unreachable` where `seconds` are over before."""
        deadline = time.monotonic() + seconds
        mine = self._turn(deadline)

        def asked() -> T:
            try:
                return question()
            finally:
                self._end(mine)

        try:
            answer = call_apart(asked, name="billing-question")
        except RuntimeError as error:
            self._end(mine)
            raise Unreachable(f"PostgreSQL is not asked: {error}") from error
        try:
            return answer.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            if answer.done():
                raise
            raise _late(mine) from None

    def _turn(self, deadline: float) -> _Question:
        """Wait until no other question goes on; return the one that this thread may ask now."""
        while True:
            with self._lock:
                now, going = self._clock.monotonic(), self._going
                if going is None or now - going.since >= QUESTION_SECONDS_MAX:
                    self._going = mine = _Question(now)
                    return mine
            if going.is_late or not going.ended.wait(max(0.0, deadline - time.monotonic())):
                raise _late(going)

    def _end(self, question: _Question) -> None:
        with self._lock:
            if self._going is question:
                self._going = None
        question.ended.set()


def _late(question: _Question) -> Unreachable:
    question.is_late = True
    return Unreachable("PostgreSQL has not answered within its bound")
