"""Gives back the holds of runs that a direct event has charged, once their buckets know of that charge (L1).

Until then a hold keeps its credits from other work: it is renewed, and asserted while its shard recovers. The charge is
in the log, and either a posting has told the bucket or the bucket's rebuild has read it; what the rebuild found held it
has marked as charged, and there is nothing left to give back. A process that ends leaves these holds to their leases.
PostgreSQL is asked in a thread of its own: one that stands still keeps these holds, and nothing else (L10).
"""

from __future__ import annotations

import collections
import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from billing.core.errors import Refusing, Retryable, Unreachable
from billing.core.shards import shard_of
from billing.credits.values import ReleaseOutcome
from billing.task.pending import Pending
from billing.task.run import Run

if TYPE_CHECKING:
    from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: Runs whose holds wait here; past it the oldest hold of the client that has most is left to its lease (L9, L10).
HOLDS_MAX: Final = 1_000
#: PostgreSQL did not answer: it is asked again after this long.
PAUSE_SECONDS: Final = 15.0
#: The hold stays: the bucket is not back.
_NOT_YET: Final = (ReleaseOutcome.RECOVERING, ReleaseOutcome.CORRUPT)


class Releases:
    """The runs of one process whose holds are to be given back. `pending` calls `release` whenever it pays."""

    def __init__(self, runtime: Runtime, pending: Pending, renew_no_more: Callable[[Run], None]) -> None:
        self._runtime, self._pending, self._renew_no_more = runtime, pending, renew_no_more
        #: By settlement: two deliveries of one run may end here, and only one of them has the hold.
        self._runs: dict[str, Run] = {}
        #: Those of which PostgreSQL has said so. It stays true: a bucket that forgets it is rebuilt from the log.
        self._told: set[uuid.UUID] = set()
        self._paused_until = 0.0
        self._lock = threading.Lock()
        #: The question that PostgreSQL was asked last; another follows once it is over.
        self._asking: threading.Thread | None = None
        self._closed, self._beginning = False, threading.Lock()
        pending.also(self.release)

    def __len__(self) -> int:
        """Return how many holds wait."""
        return len(self._runs)

    def add(self, run: Run) -> None:
        """Give the hold of a run back later. A charge that no bucket learns of does not keep it for ever (L9)."""
        clock, settings = self._runtime.clock, self._runtime.settings
        run.renewed_until = min(run.renewed_until, clock.monotonic() + settings.hold_age_max_seconds)
        self._runs[run.settlement_id] = run
        self._closed = False
        while len(waiting := self._waiting()) > HOLDS_MAX:
            most = collections.Counter(run.identity.client_id for run in waiting).most_common(1)[0][0]
            self._be_done(next(run for run in waiting if run.identity.client_id == most))
        self._pending.wake()

    def close(self, seconds: float) -> None:
        """Ask nothing until a run is added, and wait so long for a question under way: its pool is closed next."""
        with self._beginning:
            self._closed, asking = True, self._asking
        if asking is not None:
            asking.join(seconds)

    def release(self) -> None:
        """Give back what can be given back by now. What fails stays; a node that falls silent is waited for once.

        An error that nobody foresaw keeps its own run alone, and is raised once the others have had their turn.
        """
        now = self._runtime.clock.monotonic()
        for overdue in [run for run in self._waiting() if run.renewed_until <= now]:
            self._be_done(overdue)
        self._ask(now)
        silent: set[str] = set()
        unforeseen: Exception | None = None
        for run in [run for run in self._waiting() if run.identity.run_id in self._told]:
            try:
                node = self._runtime.buckets.node_of(shard_of(run.identity.client_id, self._runtime.settings.shards))
                if node not in silent and not self._is_answered(run):
                    silent.add(node)
            except Exception as error:  # noqa: BLE001 - one line for all of them
                unforeseen = unforeseen or error
        if unforeseen is not None:
            raise unforeseen

    def _is_answered(self, run: Run) -> bool:
        """Give a hold back if its bucket is there; return whether its server answered."""
        try:
            outcome = self._runtime.buckets.release(run.identity.client_id, run.identity.run_id, run.hold.token)
        except Unreachable as error:
            return isinstance(error, Refusing)
        if outcome not in _NOT_YET:
            self._be_done(run)
        return True

    def _ask(self, now: float) -> None:
        """Have PostgreSQL asked which of the charges the buckets know, unless it is being asked, or was not there."""
        if now < self._paused_until or (self._asking is not None and self._asking.is_alive()):
            return
        runs = {run.identity.run_id: run.identity.client_id for run in self._waiting()}
        asked = [(client_id, run_id) for run_id, client_id in runs.items() if run_id not in self._told]
        with self._beginning:
            if asked and not self._closed:
                self._asking = self._start(lambda: self._question(asked))

    def _start(self, question: Callable[[], None]) -> threading.Thread | None:
        # No bound of ours ends the wait for a server that stands still while its machine answers.
        thread = threading.Thread(target=question, name="billing-charges", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The interpreter ends, or the machine has no thread left: these holds go on waiting, and no others.
            return None
        return thread

    def _question(self, asked: Sequence[tuple[str, uuid.UUID]]) -> None:
        try:
            told = self._runtime.records.told_charges(asked)
        except Exception as error:
            self._paused_until = self._runtime.clock.monotonic() + PAUSE_SECONDS
            if isinstance(error, Retryable):
                logger.warning("billing: %d holds of charged runs wait for PostgreSQL: %s", len(asked), error)
            else:
                logger.exception("billing: %d holds of charged runs wait: PostgreSQL could not be asked", len(asked))
            return
        with self._lock:
            # Some may have been given up meanwhile.
            self._told |= told & {run.identity.run_id for run in self._waiting()}

    def _waiting(self) -> list[Run]:
        """Return the runs as they are now, the oldest first: other threads add theirs."""
        return list(self._runs.values())

    def _be_done(self, run: Run) -> None:
        self._renew_no_more(run)
        with self._lock:
            self._runs.pop(run.settlement_id, None)
            self._told.discard(run.identity.run_id)
