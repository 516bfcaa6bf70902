"""Counts what a dry run would have done, in this process, and adds it to the fleet's counts each second.

Best effort: a process that is killed loses its last second, a Redis that loses its data loses the counts, and neither
has anything to do with money. No task waits for it: `Pending`'s thread adds, and after a failure not before a pause.
"""

from __future__ import annotations

import collections
import logging
import secrets
import threading
from typing import TYPE_CHECKING, Final

from billing.core.errors import BillingError
from billing.task.pending import Pending

if TYPE_CHECKING:
    from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: L9: fields that one process counts until the fleet has them.
FIELDS_MAX: Final = 1_000
#: Redis did not take them: it is asked again after this long.
PAUSE_SECONDS: Final = 5.0
ADMITTED: Final = "admitted"
CREDITS: Final = "credits"


class Counting:
    """The counts of one process. A field is `<answer>:<task>`, or `credits:<task>` for what successes would cost."""

    def __init__(self, runtime: Runtime, pending: Pending) -> None:
        self._runtime, self._pending = runtime, pending
        self._counts: collections.Counter[str] = collections.Counter()
        #: What is being added, and under which id: the same until Redis has said that it has it.
        self._adding: tuple[str, dict[str, int]] | None = None
        self._paused_until = 0.0
        self._lock = threading.Lock()
        pending.also(self.add)

    def count(self, what: str, task: str, number: int = 1) -> None:
        """Count for a task. Never waits."""
        field = f"{what}:{task}"
        with self._lock:
            if field in self._counts or len(self._counts) < FIELDS_MAX:
                self._counts[field] += number
        self._soon()

    def add(self) -> None:
        """Add what was counted to the fleet's counts. What fails is kept, and never raised."""
        now = self._runtime.clock.monotonic()
        if now < self._paused_until:
            return
        with self._lock:
            if self._adding is None and self._counts:
                self._adding, self._counts = (secrets.token_hex(8), dict(self._counts)), collections.Counter()
            adding = self._adding
        if adding is None:
            return
        try:
            self._runtime.buckets.count(*adding)
        except BillingError as error:
            self._paused_until = now + PAUSE_SECONDS
            logger.warning("billing: what dry runs counted waits for Redis: %s", error)
        else:
            self._adding = None

    def _soon(self) -> None:
        """See to it that what was counted is added."""
        self._pending.wake()
