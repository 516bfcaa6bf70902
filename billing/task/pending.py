"""What a worker still owes after a task: confirmed outbox entries to remove, and settles that Redis did not take.

Confirmed entries ride in the pipeline of the next reserve, or go with a flush within a second. A settle that failed
is kept, within a bound, and tried again each second: finished work is charged, not logged and forgotten (L3).
"""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable
from typing import Final

from billing.core.errors import BillingError, Retryable

logger = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 1.0
#: Bounds (L9): past them the relay (entries) and the reaper (settles) do the work from Redis' own records.
ENTRIES_MAX: Final = 10_000
SETTLES_MAX: Final = 1_000

Entry = tuple[int, str]


class Pending:
    """The debts of one process, and the thread that pays them."""

    def __init__(self, forget: Callable[[list[Entry]], None]) -> None:
        self._forget = forget
        self._entries: collections.deque[Entry] = collections.deque(maxlen=ENTRIES_MAX)
        self._settles: collections.deque[Callable[[], None]] = collections.deque(maxlen=SETTLES_MAX)
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._paying = threading.Lock()

    def confirmed(self, entry: Entry) -> None:
        """Remember an outbox entry whose event RabbitMQ has confirmed."""
        self._entries.append(entry)
        self._start()

    def take_confirmed(self) -> list[Entry]:
        """Return the confirmed entries, for a pipeline that is about to be sent; the caller now owes them."""
        taken: list[Entry] = []
        while self._entries:
            try:
                taken.append(self._entries.popleft())
            except IndexError:
                break
        return taken

    def settle_later(self, settle: Callable[[], None]) -> None:
        """Keep a settle that Redis did not answer; `settle` raises `Retryable` while it still does not."""
        if len(self._settles) == SETTLES_MAX:
            logger.error("billing: %d settles wait for Redis; the oldest is left to the reaper", SETTLES_MAX)
        self._settles.append(settle)
        self._start()

    def pay(self) -> None:
        """Do now what is owed; what fails again is kept."""
        with self._paying:
            for _ in range(len(self._settles)):
                settle = self._settles.popleft()
                try:
                    settle()
                except Retryable:
                    self._settles.appendleft(settle)
                    break
                except BillingError:
                    logger.exception("billing: a kept settle was refused; the reaper decides by the task's result")
            entries = self.take_confirmed()
            if entries:
                try:
                    self._forget(entries)
                except Retryable:
                    self._entries.extend(entries)

    def _start(self) -> None:
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="billing-pending", daemon=True)
                self._thread.start()

    def _loop(self) -> None:
        while not self._wake.wait(FLUSH_SECONDS):
            try:
                self.pay()
            except Exception:
                logger.exception("billing: paying what is pending failed; it is tried again")
