"""Renews the holds of the runs of this very process, from a thread of its own, so that no live run loses one (L5).

Each process keeps its own: a prefork child goes on renewing while its parent waits for it in a shutdown, or for a
broker that is away. The worker's main process renews too (`leases.py`), for a run that keeps its whole process busy in
C code.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from billing.core.clock import Clock
from billing.core.errors import Retryable
from billing.task.run import Run

logger = logging.getLogger(__name__)


class Renewal:
    """The runs of this process that hold credits, and the thread that renews them."""

    def __init__(self, interval_seconds: float, renew: Callable[[Sequence[Run]], None], clock: Clock) -> None:
        self._interval = interval_seconds
        self._renew = renew
        self._clock = clock
        self._runs: dict[int, Run] = {}
        self._lock = threading.Lock()
        self._never = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, run: Run) -> None:
        """Renew the hold of a run from now on."""
        self._runs[id(run)] = run
        if self._thread is None:
            self._start()

    def remove(self, run: Run) -> None:
        """Renew it no longer."""
        self._runs.pop(id(run), None)

    def renew(self) -> None:
        """Renew all once. Never raises."""
        now = self._clock.monotonic()
        runs = list(self._runs.values())
        for abandoned in [run for run in runs if run.renewed_until <= now]:
            # Nobody ended it, say a generator that was dropped in its block: it is kept no longer than renewed (L9).
            self.remove(abandoned)
        runs = [run for run in runs if run.renewed_until > now]
        if not runs:
            return
        try:
            self._renew(runs)
        except Retryable as error:
            logger.warning("billing: %d leases are not renewed: %s", len(runs), error)
        except Exception:
            logger.exception("billing: %d leases are not renewed", len(runs))

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="billing-renewal", daemon=True)
                self._thread.start()

    def _loop(self) -> None:
        while not self._never.wait(self._interval):
            self.renew()
