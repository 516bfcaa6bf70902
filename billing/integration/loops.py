"""A short job that a fulfillment worker repeats in a thread of its own, until it is told to stop.

A job that raises is logged and repeated after a longer pause, up to a bound; it never ends the worker (L9, L10).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from billing.core.errors import Retryable

logger = logging.getLogger(__name__)

PAUSE_SECONDS_MAX: Final = 30.0


class Loop:
    """Runs `job` every `interval_seconds`, and `at_end` once after the last time.

    `pause_seconds_max`: the longest pause after a job that raised.
    """

    def __init__(
        self,
        name: str,
        interval_seconds: float,
        job: Callable[[], object],
        *,
        at_end: Callable[[], object] = lambda: None,
        pause_seconds_max: float = PAUSE_SECONDS_MAX,
    ) -> None:
        self.name = name
        self._interval = interval_seconds
        self._job = job
        self._at_end = at_end
        self._pause_max = pause_seconds_max
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"billing-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end after the current job."""
        self._stopped.set()

    def join(self, timeout_seconds: float) -> None:
        """Wait for the thread, at most so long."""
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        pause = self._interval
        while not self._stopped.wait(pause):
            try:
                self._job()
            except Retryable as error:
                logger.warning("billing: %s waits: %s", self.name, error)
            except Exception:
                logger.exception("billing: %s failed; it is tried again", self.name)
            else:
                pause = self._interval
                continue
            pause = min(self._pause_max, max(pause, 0.5) * 2)
        try:
            self._at_end()
        except Exception:
            logger.exception("billing: what %s has begun is left to the next worker", self.name)
