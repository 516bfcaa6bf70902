"""What a worker still owes after a task: confirmed outbox entries to remove, and settles that Redis did not take.

Confirmed entries ride with a reserve once they are some, or go with a flush within a second. A settle that failed
is kept, within a bound, and tried again each second; if it can wait no longer it is charged by a direct event, without
Redis: finished work is charged, not logged and forgotten (L3). A node that does not answer keeps back what is owed to
it, and nothing else (L10).
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from billing.core.errors import BillingError, Refusing, Retryable, Unreachable

logger = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 1.0
#: Bounds (L9): past them the relay does the work for the entries, and a settle is charged without Redis.
ENTRIES_MAX: Final = 10_000
SETTLES_MAX: Final = 1_000
#: So many confirmed entries ride along with a reserve: a pipeline costs a worker more than the plain call, and what
#: waits for company is flushed within a second.
RIDERS_MIN: Final = 16
#: How often a settle that fails in an unforeseen way is tried, once a second (L9).
TRIES_MAX: Final = 60
_CLOSE_PAUSE_SECONDS: Final = 0.25

Entry = tuple[int, str]


@dataclasses.dataclass(slots=True)
class _Kept:
    settle: Callable[[], None]
    #: What is done when the settle can wait no longer.
    resort: Callable[[], None]
    #: Where it is to be settled.
    shard: int
    tries: int = 0
    #: It was charged by its resort while a try of it went on.
    is_over: bool = False


class Pending:
    """The debts of one process, and the thread that pays them."""

    def __init__(self, forget: Callable[[list[Entry]], list[Entry]], node_of: Callable[[int], str]) -> None:
        """`forget` removes entries and returns those that it could not; `node_of` names the server of a shard."""
        self._forget = forget
        self._node_of = node_of
        self._entries: collections.deque[Entry] = collections.deque(maxlen=ENTRIES_MAX)
        #: Entries that a reserve could not take along: they wait for a flush, and for no reserve.
        self._left: collections.deque[Entry] = collections.deque(maxlen=ENTRIES_MAX)
        #: The nodes that did not answer the last time: their settles are tried after the others'.
        self._silent: frozenset[str] = frozenset()
        self._settles: collections.deque[_Kept] = collections.deque()
        #: The settle that is being tried.
        self._tried: _Kept | None = None
        #: What else is done with each payment, after the settles.
        self._others: list[Callable[[], None]] = []
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._paying = threading.Lock()

    @property
    def owed(self) -> int:
        """How many settles are kept, the one included that is being tried."""
        return len(self._settles) + (self._tried is not None)

    def also(self, pay: Callable[[], None]) -> None:
        """Have this done, too, whenever debts are paid. What it raises is logged; it is called again."""
        self._others.append(pay)

    def wake(self) -> None:
        """See to it that debts are paid from now on."""
        self._start()

    def confirmed(self, entry: Entry) -> None:
        """Remember an outbox entry whose event RabbitMQ has confirmed."""
        self._entries.append(entry)
        self._start()

    def take_riders(self) -> list[Entry]:
        """Return the confirmed entries if they are enough to go along with a reserve; the caller now owes them."""
        return _all_of(self._entries) if len(self._entries) >= RIDERS_MIN else []

    def give_back(self, entries: Iterable[Entry]) -> None:
        """Take back entries that could not ride: they go with a flush."""
        self._left.extend(entries)

    def take_confirmed(self) -> list[Entry]:
        """Return the confirmed entries, for a pipeline that is about to be sent; the caller now owes them."""
        return _all_of(self._left) + _all_of(self._entries)

    def settle_later(self, settle: Callable[[], None], resort: Callable[[], None], *, shard: int = 0) -> None:
        """Keep a settle that Redis did not take; `settle` raises `Retryable` while it still does not.

        `resort` charges without Redis. It is for a settle that can wait no longer: the process ends, or too many wait.
        """
        if len(self._settles) >= SETTLES_MAX:
            logger.error("billing: %d settles wait for Redis; the oldest is charged without it", SETTLES_MAX)
            self._settles.popleft().resort()
        self._settles.append(_Kept(settle, resort, shard))
        self._start()

    def close(self, seconds: float) -> None:
        """Pay what is owed before the process ends: wait for Redis so long, then charge without it.

        So long, too, for a payment that goes on: what it is trying is charged without it (L9).
        """
        deadline = time.monotonic() + seconds
        while self._paying.acquire(timeout=max(0.0, deadline - time.monotonic())):
            try:
                self._pay()
            finally:
                self._paying.release()
            if not self._settles or time.monotonic() > deadline:
                break
            self._wake.wait(_CLOSE_PAUSE_SECONDS)
        with self._lock:
            left = [*([] if self._tried is None else [self._tried]), *self._settles]
            self._settles.clear()
            for kept in left:
                kept.is_over = True
        for kept in left:
            kept.resort()

    def pay(self) -> None:
        """Do now what is owed; what fails again is kept."""
        with self._paying:
            self._pay()

    def _pay(self) -> None:
        self._settle_all()
        for pay in self._others:
            try:
                pay()
            except Exception:
                logger.exception("billing: a debt could not be paid; it is tried again")
        entries = self.take_confirmed()
        if entries:
            self._left.extend(self._forget(entries))

    def _settle_all(self) -> None:
        """Try every settle once, but for those of a node that did not answer: it is waited for once, and last (L9)."""
        silent: set[str] = set()
        refusing: set[int] = set()
        for late in (False, True):
            for _ in range(len(self._settles)):
                kept = self._take()
                if kept is None:
                    break
                is_paid = False
                try:
                    node = self._node_of(kept.shard)
                    out = node in silent or kept.shard in refusing or (node in self._silent) is not late
                    is_paid = not out and self._is_paid(kept, node, silent, refusing)
                finally:
                    self._put_back(kept, is_paid=is_paid)
        self._silent = frozenset(silent)

    def _take(self) -> _Kept | None:
        """Return the next settle to try; None where `close` has them all."""
        with self._lock:
            self._tried = self._settles.popleft() if self._settles else None
            return self._tried

    def _put_back(self, kept: _Kept, *, is_paid: bool) -> None:
        with self._lock:
            self._tried = None
            if not is_paid and not kept.is_over:
                # Whoever is kept goes to the end, so that their order stays.
                self._settles.append(kept)

    def _is_paid(self, kept: _Kept, node: str, silent: set[str], refusing: set[int]) -> bool:
        """Try a settle; return whether nothing is owed any more. Notes a node that is silent, a shard that refuses."""
        try:
            kept.settle()
        except Refusing:
            refusing.add(kept.shard)
            return False
        except Unreachable:
            silent.add(node)
            return False
        except Retryable:
            # Its own shard is being rebuilt; the others' settles need not wait for that (L10).
            return False
        except BillingError:
            logger.exception("billing: a kept settle was refused; the reaper decides by the task's result")
        except Exception:
            logger.exception("billing: a kept settle failed; it is tried %d times in all", TRIES_MAX)
            kept.tries += 1
            if kept.tries < TRIES_MAX:
                return False
            kept.resort()
        return True

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


def _all_of(entries: collections.deque[Entry]) -> list[Entry]:
    taken: list[Entry] = []
    while entries:
        try:
            taken.append(entries.popleft())
        except IndexError:
            break
    return taken
