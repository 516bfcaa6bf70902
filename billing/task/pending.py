"""What a worker still owes after a task: confirmed outbox entries to remove, and settles that Redis did not take.

Confirmed entries ride with a reserve once they are some, or go with a flush within a second. A settle that failed
is kept, within a bound, and tried again each second: finished work is charged, not logged and forgotten (L3).
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import threading
from collections.abc import Callable
from typing import Final

from billing.core.errors import BillingError, Retryable, Unreachable

logger = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 1.0
#: Bounds (L9): past them the relay (entries) and the reaper (settles) do the work from Redis' own records.
ENTRIES_MAX: Final = 10_000
SETTLES_MAX: Final = 1_000
#: So many confirmed entries ride along with a reserve: a pipeline costs a worker more than the plain call, and what
#: waits for company is flushed within a second.
RIDERS_MIN: Final = 16
#: How often a settle that fails in an unforeseen way is tried, once a second (L9).
TRIES_MAX: Final = 60

Entry = tuple[int, str]


@dataclasses.dataclass(slots=True)
class _Kept:
    settle: Callable[[], None]
    tries: int = 0


class Pending:
    """The debts of one process, and the thread that pays them."""

    def __init__(self, forget: Callable[[list[Entry]], None]) -> None:
        self._forget = forget
        self._entries: collections.deque[Entry] = collections.deque(maxlen=ENTRIES_MAX)
        self._settles: collections.deque[_Kept] = collections.deque(maxlen=SETTLES_MAX)
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._paying = threading.Lock()

    def confirmed(self, entry: Entry) -> None:
        """Remember an outbox entry whose event RabbitMQ has confirmed."""
        self._entries.append(entry)
        self._start()

    def take_riders(self) -> list[Entry]:
        """Return the confirmed entries if they are enough to go along with a reserve; the caller now owes them."""
        return self.take_confirmed() if len(self._entries) >= RIDERS_MIN else []

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
        self._settles.append(_Kept(settle))
        self._start()

    def pay(self) -> None:
        """Do now what is owed; what fails again is kept."""
        with self._paying:
            for _ in range(len(self._settles)):
                kept = self._settles.popleft()
                try:
                    kept.settle()
                except Unreachable:
                    self._settles.appendleft(kept)
                    break
                except Retryable:
                    # Its own shard is being rebuilt; the others' settles need not wait for that (L10).
                    self._settles.append(kept)
                except BillingError:
                    logger.exception("billing: a kept settle was refused; the reaper decides by the task's result")
                except Exception:
                    logger.exception("billing: a kept settle failed; it is tried %d times in all", TRIES_MAX)
                    kept.tries += 1
                    if kept.tries < TRIES_MAX:
                        self._settles.append(kept)
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
