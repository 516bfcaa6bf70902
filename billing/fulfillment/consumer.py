"""The fulfillment consumer: usage queues in, committed rows out, in a thread and on a connection of its own.

Guarantee: a message is acked after the transaction that wrote it (or its dead letter) has committed, never before. So
a consumer that is killed anywhere has its batch sent again, and the log's key makes that harmless (L3). While one
batch is written the next one is received. What stops it, other than being told to: a run of refused events so long
that something other than the events must be wrong.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from billing.connections import postgres
from billing.core.errors import Fatal, Unreachable
from billing.core.settings import Settings
from billing.fulfillment.background import Background
from billing.fulfillment.backoff import Backoff
from billing.fulfillment.batch import Batch, Received
from billing.fulfillment.commit import Commit, Stopped, Written
from billing.fulfillment.intake import HEARTBEAT_SECONDS, Intake, ahead
from billing.fulfillment.log import UsageLog
from billing.fulfillment.pressure import Pressure, WriteTimes
from billing.fulfillment.refusals import Refusals

logger = logging.getLogger(__name__)

#: Waits between tries to subscribe (L9).
RECONNECT_SECONDS: Final = 0.25
RECONNECT_SECONDS_MAX: Final = 15.0
#: The longest the loop sleeps in one go: a stop is noticed within it.
PULL_SECONDS: Final = 0.2
#: How often the loop looks whether a write is done, while nothing comes in.
LOOK_SECONDS: Final = 0.005
#: A batch that waits for the database this long is given back: another consumer may reach it.
GIVE_BACK_SECONDS: Final = 60.0
#: How often the consumer asks the broker whether it is still subscribed.
CHECK_SECONDS: Final = 30.0
#: How long a stop waits for the batch that is being written.
STOP_SECONDS: Final = 10.0

AfterCommit = Callable[[Sequence[Received]], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """When a bounded run ends (None: never): after a time, a number of batches, or a time in which nothing came."""

    seconds: float | None = None
    batches: int | None = None
    idle_seconds: float | None = None


@dataclass(kw_only=True, slots=True)
class _Writing:
    """The batch that is being written. `intake` is where it may be acked; None once that connection is gone."""

    batch: list[Received]
    intake: Intake | None
    since: float
    #: When its oldest message came.
    came: float
    future: concurrent.futures.Future[Written]


class Consumer:
    """Consumes `queues` (None: all usage queues) into `usage_log`, and closes that at the end.

    `run` is for a thread of its own; the log is only used in one more, which the consumer starts.
    """

    def __init__(
        self,
        settings: Settings,
        usage_log: UsageLog,
        *,
        queues: Sequence[int] | None = None,
        after_commit: AfterCommit | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._settings = settings
        self._queues = range(settings.usage_queues) if queues is None else tuple(queues)
        self._usage_log = usage_log
        self._after_commit = after_commit
        self._stop = stop or threading.Event()
        self._give_up = threading.Event()
        self._commit = Commit(usage_log, self._give_up)
        self._background: Background[Written] = Background("billing-usage-log")
        self._batch = Batch(
            events_max=settings.batch_events,
            bytes_max=settings.batch_bytes,
            age_max_seconds=settings.batch_age_seconds,
        )
        self._intake: Intake | None = None
        self._writing: _Writing | None = None
        self._reconnect = Backoff(first_seconds=RECONNECT_SECONDS, most_seconds=RECONNECT_SECONDS_MAX)
        self._beat_at = 0.0
        self._check_at = 0.0
        self._busy_at = 0.0
        self._ends_at = math.inf
        self._refusals = Refusals(settings)
        self._write_times = WriteTimes()
        self.batches = 0
        self.written = Written(events=0, rows=0, duplicates=0, dead_letters=0)
        #: Why it stopped by itself, and the last thing that was unreachable.
        self.error: Fatal | None = None
        self.trouble: Unreachable | None = None

    def stop(self) -> None:
        """Have `run` end: the batch being written is finished and acked, the rest goes back to its queue."""
        self._stop.set()

    def run(self, bounds: Bounds | None = None) -> None:
        """Consume until told to stop, until `bounds` are reached, or until `error` is set. It raises nothing."""
        limits = bounds or Bounds()
        started = self._busy_at = time.monotonic()
        self._ends_at = math.inf if limits.seconds is None else started + limits.seconds
        try:
            while not self._over(limits):
                try:
                    self._turn()
                except Unreachable as error:
                    self._lost(error)
                except Fatal:
                    raise
                except Exception as error:  # a transport that breaks in its own way must not end the fulfillment
                    logger.exception("billing: the consumer's connection broke")
                    self._lost(Unreachable(f"billing_broker_url: the connection broke ({type(error).__name__})"))
        except Fatal as error:
            self.error = error
            logger.critical("billing: the consumer stops: %s", error)
        finally:
            self._finish()

    def pressure(self) -> Pressure:
        """Return what it has in hand, and how long that waits. For any thread."""
        now, writing, oldest = time.monotonic(), self._writing, self._batch.oldest
        in_writing = 0 if writing is None or writing.intake is None else len(writing.batch)
        came = oldest if writing is None else writing.came
        waits_since, written = self._commit.waits_since, self.written
        return Pressure(
            in_hand=len(self._batch) + in_writing,
            in_hand_max=ahead(self._settings) * len(self._queues),
            oldest_seconds=0.0 if came is None else now - came,
            write_seconds=0.0 if writing is None else now - writing.since,
            database_seconds=0.0 if waits_since is None else now - waits_since,
            database_failures=self._commit.waits,
            queues=0 if self._intake is None else len(self._queues),
            events=written.events,
            rows=written.rows,
            duplicates=written.duplicates,
            dead_letters=written.dead_letters,
            forged=written.forged,
            signed_unasked=0 if self._intake is None else self._intake.signed_unasked,
            writes=tuple(self._write_times.counts),
            writes_seconds=self._write_times.seconds,
        )

    def _over(self, limits: Bounds) -> bool:
        now = time.monotonic()
        if self._stop.is_set() or now >= self._ends_at:
            return True
        if limits.batches is not None and self.batches >= limits.batches:
            return True
        waiting = self._writing is not None or len(self._batch) > 0
        return limits.idle_seconds is not None and not waiting and now - self._busy_at >= limits.idle_seconds

    def _turn(self) -> None:
        """Go once around the loop."""
        if self._collect():
            return
        if self._intake is None:
            self._subscribe()
            return
        now = time.monotonic()
        if now >= self._beat_at:
            self._intake.beat()
            self._beat_at = now + HEARTBEAT_SECONDS / 4
        if now >= self._check_at:
            self._intake.check()
            self._check_at = now + CHECK_SECONDS
        if self._writing is None and self._batch.due(now):
            self._write()
        if self._writing is None:
            left = self._batch.seconds_left(now)
            self._intake.pull(PULL_SECONDS if left is None else min(PULL_SECONDS, left), lambda: self._batch.full)
            return
        if now - self._writing.since > GIVE_BACK_SECONDS:
            message = f"billing_database_url: a batch has waited {GIVE_BACK_SECONDS:g} s for the database"
            raise Unreachable(message)
        if self._batch.full:
            # What the broker sent ahead is here: the next thing to happen is the end of the write.
            concurrent.futures.wait([self._writing.future], timeout=PULL_SECONDS)
        self._intake.pull(LOOK_SECONDS, self._writing.future.done)

    def _subscribe(self) -> None:
        """Open an intake, but only while the database answers and nothing old is being written."""
        if self._writing is not None:
            concurrent.futures.wait([self._writing.future], timeout=PULL_SECONDS)
            return
        with postgres.connect(self._settings, autocommit=True) as connection, postgres.reaching(self._settings):
            connection.execute("SELECT 1")
        intake = Intake(self._settings, self._queues, self._receive)
        try:
            intake.open()
        except BaseException:
            intake.throw_away()
            raise
        self._intake = intake
        self._beat_at = 0.0
        self._check_at = time.monotonic() + CHECK_SECONDS
        if self.trouble is not None:
            logger.info("billing: the consumer is subscribed again")
        self.trouble = None

    def _receive(self, received: Received) -> None:
        self._busy_at = time.monotonic()
        self._batch.add(received, self._busy_at)

    def _write(self) -> None:
        now = time.monotonic()
        came, batch = self._batch.oldest or now, self._batch.take()
        future = self._background.submit(lambda: self._commit_one(batch))
        self._writing = _Writing(batch=batch, intake=self._intake, since=now, came=came, future=future)

    def _commit_one(self, batch: list[Received]) -> Written:
        """Commit, in the background thread; then let outbox entries go."""
        began = time.monotonic()
        written = self._commit.commit(batch)
        self._write_times.note(time.monotonic() - began)
        if self._after_commit is not None:
            try:
                self._after_commit(batch)
            except Exception:
                # The rows are there. What was to follow is done again for the next copy of the event.
                logger.exception("billing: what follows a commit failed")
        return written

    def _collect(self) -> bool:
        """Ack the batch that was written, if it was, on the channel that it came from; return whether it was."""
        writing = self._writing
        if writing is None or not writing.future.done():
            return False
        self._writing = None
        try:
            written = writing.future.result()
        except Stopped:
            return True
        except Exception as error:
            message = f"the log refuses even the dead letter of an event: {error}"
            raise Fatal(message) from error
        self.batches += 1
        # Whose they were is for the caps: a sum of all clients would grow for ever.
        self.written += dataclasses.replace(written, refused_of={})
        self._busy_at = time.monotonic()
        if writing.intake is not None:
            writing.intake.ack(writing.batch)
            self._reconnect.reset()
        reason = self._refusals.note(writing.batch, written.dead_letters, written.refused_of)
        if reason is not None:
            raise Fatal(reason)
        return True

    def _lost(self, error: Unreachable) -> None:
        """Drop the intake and every tag of it, and wait a little before the next try."""
        self._drop()
        self.trouble = error
        seconds = min(self._reconnect.next_seconds(), max(0.0, self._ends_at - time.monotonic()))
        logger.warning("billing: the consumer tries again in %.1f s: %s", seconds, error)
        self._stop.wait(seconds)

    def _drop(self) -> None:
        intake, self._intake = self._intake, None
        self._batch.clear()
        if self._writing is not None:
            self._writing.intake = None
        if intake is not None:
            intake.throw_away()

    def _finish(self) -> None:
        """Finish the batch that is being written, within a bound; the rest goes back to its queue."""
        self._give_up.set()
        if self._writing is not None:
            concurrent.futures.wait([self._writing.future], timeout=STOP_SECONDS)
        try:
            self._collect()
        except (Unreachable, Fatal) as error:
            logger.warning("billing: at the consumer's end: %s", error)
        intake, self._intake = self._intake, None
        if intake is not None:
            intake.close()
        self._batch.clear()
        self._background.close(0 if self._writing is not None else STOP_SECONDS, last=self._usage_log.close)
