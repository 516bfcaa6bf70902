"""Notes in PostgreSQL that tasks which had been parked have reserved: until then their credits are kept for them.

Best effort, and never waited for: a note that is lost keeps the credits of one task from its client's next parked
ones for ten minutes, no more. One thread of a process writes them, and only while there are any.
"""

from __future__ import annotations

import collections
import logging
import threading
import uuid
import weakref
from typing import TYPE_CHECKING, Final

from billing.connections.per_process import PerProcess
from billing.core.apart import call_apart
from billing.core.errors import Retryable
from billing.parking.message import parked_times
from billing.task.run import Run

if TYPE_CHECKING:
    from billing.task.headers import Request
    from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: Notes that wait to be written; past it the oldest goes (L9).
NOTES_MAX: Final = 1_000


class Notes:
    """The notes of one runtime in one process."""

    def __init__(self) -> None:
        self._waiting: collections.deque[tuple[uuid.UUID, int]] = collections.deque(maxlen=NOTES_MAX)
        self._lock = threading.Lock()
        self._writing = False

    def add(self, runtime: Runtime, run_id: uuid.UUID, times: int) -> None:
        """Have a note written, by a thread that may be at it already."""
        with self._lock:
            self._waiting.append((run_id, times))
            if self._writing:
                return
            self._writing = True
        try:
            call_apart(lambda: self._write(runtime), name="billing-begun")
        except RuntimeError:
            # The process ends, or the machine has no thread left.
            self._writing = False

    def _write(self, runtime: Runtime) -> None:
        from billing.parking.storing import store_begun  # noqa: PLC0415 - with SQLAlchemy, which few workers need

        while True:
            with self._lock:
                if not self._waiting:
                    self._writing = False
                    return
                run_id, times = self._waiting.popleft()
            try:
                store_begun(runtime, run_id, times)
            except Retryable as error:
                logger.warning("billing: that parked run %s has begun is not noted: %s", run_id, error)
            except Exception:
                logger.exception("billing: that parked run %s has begun is not noted", run_id)


_notes: Final[PerProcess[weakref.WeakKeyDictionary[Runtime, Notes]]] = PerProcess(weakref.WeakKeyDictionary)


def note_if_parked(runtime: Runtime, request: Request, run: Run) -> None:
    """Note that a run has reserved, if its message was handed over after it was parked. Never waits."""
    times = parked_times(request.headers)
    if times:
        _notes.get().setdefault(runtime, Notes()).add(runtime, run.identity.run_id, times)
