"""Keeps the latest reading of the fleet at hand, with its age: one thread of a process reads, whoever asks is answered.

It begins when somebody first asks, and ends with the process. A server that hangs keeps one thread for each question
that it has not answered, however long that lasts (L9).
"""

from __future__ import annotations

import functools
import logging
import threading
from typing import Any, Final

from billing.core.clock import Clock
from billing.observability.overview.reading import READ_SECONDS, SLOW_PACE_SECONDS, FleetReader
from billing.observability.overview.values import FleetState
from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: How long it rests between two readings: a page that is looked at seems alive, and a reading costs milliseconds.
EVERY_SECONDS: Final = 5.0


class Watch:
    """Reads every few seconds. Threads may share it; processes may not."""

    def __init__(
        self,
        runtime: Runtime,
        app: Any = None,
        *,
        every_seconds: float = EVERY_SECONDS,
        slow_pace_seconds: float = SLOW_PACE_SECONDS,
    ) -> None:
        """`app` adds the doctor's look at its tasks. Nothing is read, and no thread begun, before somebody asks."""
        self._runtime, self._app = runtime, app
        self._every_seconds, self._slow_pace_seconds = every_seconds, slow_pace_seconds
        self._lock = threading.Lock()
        self._read = threading.Condition(self._lock)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._state: FleetState | None = None
        self._at = 0.0
        self._readings = 0

    def latest(self, *, wait_seconds: float = 0.0) -> FleetState | None:
        """Return the latest reading, waiting so long at most for the first one; None while there is none.

        Raises `InvalidValue` for wrong settings.
        """
        self._begin()
        with self._read:
            self._read.wait_for(lambda: self._state is not None or self._stopped.is_set(), wait_seconds)
            return self._state

    @property
    def age_seconds(self) -> float | None:
        """How long ago the latest reading was made; None: there is none."""
        with self._lock:
            return None if self._state is None else max(0.0, self._clock.monotonic() - self._at)

    @property
    def readings(self) -> int:
        """How many readings were made."""
        return self._readings

    def close(self) -> None:
        """End the thread."""
        self._stopped.set()
        thread = self._thread
        if thread is not None:
            thread.join()

    @property
    def _clock(self) -> Clock:
        return self._runtime.clock

    def _begin(self) -> None:
        with self._lock:
            if self._thread is not None or self._stopped.is_set():
                return
            reader = FleetReader(self._runtime, self._app, slow_pace_seconds=self._slow_pace_seconds)
            self._thread = threading.Thread(target=self._run, args=(reader,), name="billing-watch", daemon=True)
            self._thread.start()

    def _run(self, reader: FleetReader) -> None:
        try:
            while not self._stopped.is_set():
                try:
                    self._keep(reader.read(patience_seconds=READ_SECONDS if self._state is None else 0.0))
                except Exception:
                    # Of no server's making; the latest reading gets older, which is told with it.
                    logger.exception("billing: the fleet could not be read")
                self._stopped.wait(self._every_seconds)
        finally:
            reader.close()

    def _keep(self, state: FleetState) -> None:
        with self._read:
            self._state, self._at = state, self._clock.monotonic()
            self._readings += 1
            self._read.notify_all()


@functools.lru_cache(maxsize=8)
def watch_of(runtime: Runtime, app: Any = None) -> Watch:
    """Return the one that watches for every page and every scrape of this process."""
    return Watch(runtime, app)
