"""Write one batch, whatever happens: wait for a database that is away, and find the message that it refuses.

Guarantee: when `commit` returns, every message of the batch is in the log or, with its reason, in the dead letters. A
batch that the database refuses for its content is cut in half until the refused message stands alone, so that it
delays nobody (L10). A database that is away, or that lacks a table, refuses no content: then the batch waits. It
raises `Stopped` when it is told to stop while it waits.
"""

from __future__ import annotations

import collections
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from billing.core.errors import Rejected, Retryable
from billing.fulfillment.backoff import Backoff
from billing.fulfillment.batch import Received
from billing.fulfillment.delivery import Poison
from billing.fulfillment.log import UsageLog
from billing.fulfillment.refusals import forged_of

logger = logging.getLogger(__name__)

WAIT_SECONDS: Final = 0.25
WAIT_SECONDS_MAX: Final = 15.0
#: A failure that neither the server nor the content explains is tried so often before the batch is bisected (L9).
TRIES_MAX: Final = 4
TRIES_OF_A_PART: Final = 2


class Stopped(Exception):
    """Told to stop before the batch was written; the broker will send it again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What became of a batch."""

    events: int
    rows: int
    duplicates: int
    dead_letters: int
    #: Of the dead letters those that were refused for their signature.
    forged: int = 0
    refused_of: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: Written) -> Written:
        return Written(
            events=self.events + other.events,
            rows=self.rows + other.rows,
            duplicates=self.duplicates + other.duplicates,
            dead_letters=self.dead_letters + other.dead_letters,
            forged=self.forged + other.forged,
            refused_of=collections.Counter(self.refused_of) + collections.Counter(other.refused_of),
        )


class Commit:
    """Writes batches to a log, one at a time."""

    def __init__(self, log: UsageLog, stop: threading.Event) -> None:
        self._log = log
        self._stop = stop
        self._backoff = Backoff(first_seconds=WAIT_SECONDS, most_seconds=WAIT_SECONDS_MAX)
        #: Since when the database takes no batch, in monotonic seconds (None: it does), and how often it did not.
        self.waits_since: float | None = None
        self.waits = 0

    def commit(self, batch: Sequence[Received], *, tries_max: int = TRIES_MAX) -> Written:
        """Write `batch`, waiting and bisecting as long as it takes. Raises `Stopped`."""
        tries = 0
        while True:
            try:
                report = self._log.write(batch)
            except Rejected as error:
                return self._bisect(batch, error)
            except Retryable as error:
                self.waits += 1
                self.waits_since = self.waits_since or time.monotonic()
                logger.warning("billing: %d usage events wait: %s", len(batch), error)
            except Exception as error:
                tries += 1
                logger.exception("billing: writing %d usage events failed (try %d of %d)", len(batch), tries, tries_max)
                if tries >= tries_max:
                    return self._bisect(batch, error)
            else:
                self._backoff.reset()
                self.waits_since = None
                return Written(
                    events=len(batch),
                    rows=report.rows_inserted,
                    duplicates=report.duplicates,
                    dead_letters=report.dead_letters,
                    forged=forged_of(batch) if report.dead_letters else 0,
                    refused_of=report.refused_of,
                )
            if self._stop.wait(self._backoff.next_seconds()):
                raise Stopped

    def _bisect(self, batch: Sequence[Received], error: Exception) -> Written:
        self._backoff.reset()
        if len(batch) > 1:
            # What failed again and again is not tried so often in each half: everybody else is waiting (L10).
            middle = len(batch) // 2
            halves = batch[:middle], batch[middle:]
            return self.commit(halves[0], tries_max=TRIES_OF_A_PART) + self.commit(halves[1], tries_max=TRIES_OF_A_PART)
        reason = _line(error)
        logger.error("billing: a usage event of queue %s is refused: %s", batch[0].queue, reason)
        if isinstance(batch[0].decoded, Poison):
            raise error  # even as a dead letter it is refused: that is no fault of the message
        return self.commit([msgspec.structs.replace(batch[0], decoded=Poison(reason=f"refused by the log: {reason}"))])


def _line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    text = str(error).strip()
    return (text.splitlines() or [type(error).__name__])[0][:400]
