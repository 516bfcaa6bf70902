"""L9 liveness: what must happen by itself does happen. Each part has its own bound, in terms of the schedule.

A part whose server does not answer is not looked at, and hides no other; that alone is no violation, but nothing is
said to hold then either.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from billing.connections import postgres
from billing.core.errors import BillingError
from billing.observability.laws.law import Place, Slice
from billing.observability.laws.progress import log_silence, parked_silence
from billing.observability.laws.waiting import increments_waiting, months_missing, outbox_waiting, parked_overdue
from billing.observability.liveness import seen
from billing.observability.liveness.judging import BEAT_SILENT_SECONDS, is_beat_silent, told, unserved
from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: A consumer that is started anew, as by a deploy, is away for seconds, and notes itself within one more: so often, and
#: with such pauses, it is looked for.
LOOKS_MAX: Final = 40
PAUSE_SECONDS: Final = 0.5

#: A part: what it found, given the runtime and what it remembers, which it changes.
Part = Callable[[Runtime, dict[str, Any]], Iterator[str]]


def silent(runtime: Runtime, remembered: dict[str, Any]) -> Iterator[str]:
    """Yield that beat is silent, or that no living consumer serves a usage queue."""
    for look in range(LOOKS_MAX):
        with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
            rows = seen.read(connection)
        lacking = unserved(rows, runtime.settings.usage_queues)
        if not lacking:
            break
        threading.Event().wait(PAUSE_SECONDS if look + 1 < LOOKS_MAX else 0)
    if lacking and len(lacking) == runtime.settings.usage_queues:
        yield "no consumer is seen"
    elif lacking:
        yield f"no living consumer serves the usage queues {', '.join(map(str, lacking[:10]))}"
    beats = [row.seen_at.isoformat() for row in rows if row.process == seen.BEAT] if is_beat_silent(rows) else []
    # Beat that is back after a long pause sends this check and its own message at once: it is silent if it was so, and
    # seen no later, when the last check looked.
    if beats and remembered.get("beat") == beats:
        yield f"beat was not seen for {told(BEAT_SILENT_SECONDS)}"
    remembered["beat"] = beats


PARTS: Final[tuple[Part, ...]] = (
    silent,
    log_silence,
    outbox_waiting,
    parked_overdue,
    parked_silence,
    increments_waiting,
    months_missing,
)


class Liveness:
    """All parts at each check: each reads a bounded amount."""

    name: Final = "L9 liveness"

    def check(self, runtime: Runtime, place: Place) -> Slice:
        """Look at each part. Raises `BillingError` where one could not be looked at and no other found anything."""
        remembered, found, unknown = dict(place.remembered), list[str](), list[BillingError]()
        for part in PARTS:
            try:
                found += part(runtime, remembered)
            except BillingError as error:
                logger.warning("billing: %s: %s is not looked at: %s", self.name, part.__name__, error)
                unknown.append(error)
        if unknown and not found:
            raise unknown[0]
        return Slice(
            examined=len(PARTS) - len(unknown),
            at_once=len(found),
            found_at_once="; ".join(found),
            remembered=remembered,
        )
