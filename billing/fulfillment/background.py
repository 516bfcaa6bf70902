"""One thread that does one thing at a time beside the loop, so that a slow database does not silence heartbeats.

The thread is a daemon: a write that hangs in a dead server must not keep the process from ending.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
Job = tuple[Callable[[], T], "concurrent.futures.Future[T]"]


class Background(Generic[T]):
    """Runs submitted calls in their order, in one thread that starts with the first of them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Job[T] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._last: Callable[[], object] | None = None

    def submit(self, call: Callable[[], T]) -> concurrent.futures.Future[T]:
        """Have `call` run; the future carries its result."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
            self._thread.start()
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._jobs.put((call, future))
        return future

    def close(self, timeout_seconds: float, *, last: Callable[[], object]) -> bool:
        """Have the thread call `last` after what was submitted, and end; return whether it did within the bound."""
        if self._thread is None:
            return True
        self._last = last
        self._jobs.put(None)
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        while (job := self._jobs.get()) is not None:
            call, future = job
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 -- it is the waiter's to judge
                future.set_exception(error)
        if self._last is not None:
            with contextlib.suppress(Exception):
                self._last()
