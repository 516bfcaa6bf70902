"""A fulfillment worker notes that it lives, with what it has in hand; every ten seconds, in a loop of its own.

While PostgreSQL is away nothing is noted and nothing else is disturbed: its age says the rest.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

from billing.connections import postgres
from billing.core.errors import BillingError
from billing.fulfillment.pressure import Pressure
from billing.observability.laws.compared import note_compared
from billing.observability.liveness import seen
from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: How often a consumer notes itself: six times before `judging.SILENT` calls it silent.
NOTE_SECONDS: Final = 10.0
#: How often it brings what reconciliation has found to the table of laws: more often than anybody is to wait for it.
COMPARED_SECONDS: Final = 20.0


class Presence:
    """The row of one fulfillment worker. For one thread."""

    def __init__(self, runtime: Runtime, name: str, queues: Sequence[int], pressure: Callable[[], Pressure]) -> None:
        self._runtime = runtime
        self._name = name
        self._queues = ",".join(map(str, queues))
        self._pressure = pressure
        self._began = runtime.clock.monotonic()
        self._due = self._compared_due = self._began

    def step(self) -> bool:
        """Note it if that is due, and what reconciliation has found; return whether it was. Raises `Retryable`."""
        now = self._runtime.clock.monotonic()
        if now < self._due:
            return False
        with postgres.reaching(self._runtime.settings), self._runtime.engine.begin() as connection:
            since = timedelta(seconds=now - self._began)
            seen.note(connection, seen.CONSUMER, self._name, since=since, details=self._details())
        self._due = now + NOTE_SECONDS
        if now >= self._compared_due:
            self._compared_due = now + COMPARED_SECONDS
            note_compared(self._runtime)
        return True

    def leave(self) -> None:
        """Remove the row, once, at a clean end."""
        try:
            with postgres.reaching(self._runtime.settings), self._runtime.engine.begin() as connection:
                seen.leave(connection, seen.CONSUMER, self._name)
        except BillingError as error:
            logger.warning("billing: that this worker ends is not noted: %s", error)

    def _details(self) -> dict[str, Any]:
        found = dataclasses.asdict(self._pressure())
        del found["writes"]
        numbers = {name: round(value, 3) for name, value in found.items()}
        asks = bool(self._runtime.settings.verifying_keys)
        return {"served": self._queues, "asks_for_signatures": asks, **numbers}
