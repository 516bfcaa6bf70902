"""Publishes the events of a process' runs, and keeps those that no broker has confirmed, to publish them again (L3).

An event that a bucket has settled is in Redis' outbox too, for the relay: whoever publishes it, and however often, the
log takes it once. Kept here it outlives a Redis that loses what it wrote last. A direct event is in no outbox: whoever
wants it published calls again until it is. A queue that takes nothing keeps back its own events alone (L10).
"""

from __future__ import annotations

import collections
import itertools
import logging
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from billing.connections import broker
from billing.core.clock import to_milliseconds
from billing.core.errors import Retryable
from billing.core.shards import queue_of, shard_of
from billing.events.direct import encode_direct
from billing.events.links import Outgoing
from billing.events.publisher import PartlyPublished
from billing.events.usage_event import UsageLine
from billing.task.observer import Observer, Published
from billing.task.pending import Pending
from billing.task.run import Run

if TYPE_CHECKING:
    from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: Bounds on what one process keeps (L9): past either the oldest goes, which Redis most likely has on its disk by now.
EVENTS_MAX: Final = 4_000
BYTES_MAX: Final = 4 * 1024 * 1024
#: Events that are published again together: tasks that end meanwhile have their turn between two of these.
SLICE: Final = 500
#: After so many queues that took nothing a turn ends: each may cost the bound of a publish (L9). They come last in the
#: next turn.
FAILURES_MAX: Final = 2
_CLOSE_PAUSE_SECONDS: Final = 0.25


class Events:
    """The events of one process on their way to the broker. Threads may share it."""

    def __init__(self, runtime: Runtime, pending: Pending) -> None:
        """`pending` removes confirmed outbox entries, and calls `publish_again` whenever it pays."""
        self._runtime, self._pending = runtime, pending
        self._kept: collections.deque[Outgoing] = collections.deque()
        self._bytes = 0
        #: The queues that took nothing the last time, the one that is to be tried last at the end.
        self._silent: list[int] = []
        self._is_over = False
        self._lock = threading.Lock()
        pending.also(self.publish_again)

    def __len__(self) -> int:
        """Return how many events are kept."""
        return len(self._kept)

    def publish(self, client_id: str, event: bytes, entry_id: str | None) -> None:
        """Publish a settled event. Where the broker does not take it, it is kept, and stays in the outbox besides.

        One without an entry is in no outbox.
        """
        shard = self._shard_of(client_id)
        message = Outgoing(body=event, shard=shard, entry_id=entry_id)
        try:
            self._publish(message)
        except Retryable as error:
            logger.warning("billing: an event of client %s waits for the broker: %s", client_id, error)
            self._keep(message)
        except BaseException:
            # A time limit, or Ctrl-C, came upon it.
            self._keep(message)
            raise
        else:
            self._confirmed([message])

    def publish_direct(self, run: Run, lines: Sequence[UsageLine]) -> None:
        """Publish the charge of a run that no bucket has taken, the same on every try. Raises `Retryable`."""
        again = run.direct is not None
        event, shard = self._direct_of(run, lines), self._shard_of(run.identity.client_id)
        self._publish(Outgoing(body=event, shard=shard, entry_id=None), again=again)

    def publish_outside(self, run: Run, lines: Sequence[UsageLine]) -> None:
        """Publish the event of a run outside the ceiling. Where the broker does not take it, it is kept here alone."""
        self.publish(run.identity.client_id, self._direct_of(run, lines), None)

    def close(self, seconds: float) -> None:
        """Give the broker so long to take the events that are in no outbox, and log whole what is lost with them."""
        deadline = time.monotonic() + seconds
        while any(message.entry_id is None for message in list(self._kept)) and time.monotonic() < deadline:
            self._pending.pay()
            time.sleep(_CLOSE_PAUSE_SECONDS)
        with self._lock:
            for message in self._kept:
                _tell_lost(message)

    def publish_again(self) -> None:
        """Publish what is kept, of each queue the oldest first, as far as the queue takes it. Not for two at once."""
        failures = 0
        for queue in self._queues():
            if queue in self._silent:
                self._silent.remove(queue)
            if not self._is_drained(queue):
                self._silent.append(queue)
                failures += 1
            if failures == FAILURES_MAX:
                break
        if not self._kept:
            self._is_over = False

    def _queues(self) -> list[int]:
        """Return the queues of what is kept, those last that took nothing."""
        with self._lock:
            queues = {self._queue_of(message.shard) for message in self._kept}
        return sorted(queues, key=lambda queue: self._silent.index(queue) if queue in self._silent else -1)

    def _is_drained(self, queue: int) -> bool:
        """Publish what is kept for a queue, in slices; return whether it took everything."""
        for _ in range(-(-EVENTS_MAX // SLICE)):
            with self._lock:
                own = (message for message in self._kept if self._queue_of(message.shard) == queue)
                messages = list(itertools.islice(own, SLICE))
            if not messages:
                break
            confirmed = len(messages)
            try:
                self._runtime.publisher.publish_batch(queue, messages)
            except PartlyPublished as error:
                confirmed = error.confirmed
            # What an interruption leaves here is published twice, and counted once.
            self._confirmed(messages[:confirmed])
            if self._runtime.observer is not None:
                self._tell(self._runtime.observer, confirmed)
            self._forget(messages[:confirmed])
            if confirmed < len(messages):
                return False
        return True

    def _publish(self, message: Outgoing, *, again: bool = False) -> None:
        """Publish an event. Whoever counts is told; of an event that waits, once. Raises `Retryable`."""
        observer, queue = self._runtime.observer, self._queue_of(message.shard)
        began = 0.0 if observer is None else self._runtime.clock.monotonic()
        try:
            self._runtime.publisher.publish(queue, message.body, shard=message.shard, entry_id=message.entry_id)
        except BaseException:
            if observer is not None and not again:
                observer.published(Published.UNCONFIRMED, 1)
            raise
        if observer is not None and self._tell(observer, 1):
            observer.confirmed_after(self._runtime.clock.monotonic() - began)

    def _tell(self, observer: Observer, events: int) -> bool:
        """Tell of events that the broker has; return whether it has confirmed them."""
        confirms = broker.confirms(self._runtime.settings)
        if events:
            observer.published(Published.CONFIRMED if confirms else Published.SENT, events)
        return confirms

    def _confirmed(self, messages: Sequence[Outgoing]) -> None:
        if broker.confirms(self._runtime.settings):
            for message in messages:
                if message.entry_id is not None:
                    self._pending.confirmed((message.shard, message.entry_id))

    def _keep(self, message: Outgoing) -> None:
        """Keep an event within the bounds."""
        with self._lock:
            self._kept.append(message)
            self._bytes += len(message.body)
            is_over = len(self._kept) > EVENTS_MAX or self._bytes > BYTES_MAX
            while len(self._kept) > EVENTS_MAX or self._bytes > BYTES_MAX:
                oldest = self._kept.popleft()
                self._bytes -= len(oldest.body)
                _tell_lost(oldest)
            # Told once, until all could be published.
            tell, self._is_over = is_over and not self._is_over, self._is_over or is_over
            count = len(self._kept)
        if tell:
            logger.error(
                "billing: %d events wait for the broker in this process, as many as it keeps; older ones wait in "
                "Redis' outbox alone, for the relay",
                count,
            )
        self._pending.wake()

    def _forget(self, messages: Sequence[Outgoing]) -> None:
        """Keep these no longer, unless their bounds have pushed them out meanwhile."""
        done = {id(message) for message in messages}
        with self._lock:
            self._kept = collections.deque(message for message in self._kept if id(message) not in done)
            self._bytes = sum(len(message.body) for message in self._kept)

    def _direct_of(self, run: Run, lines: Sequence[UsageLine]) -> bytes:
        """Return the event that charges a run without a bucket, the same whenever it is asked for."""
        if run.direct is None:
            now = to_milliseconds(self._runtime.clock.now())
            run.direct = encode_direct(run.head, lines, settlement_id=run.settlement_id, occurred_at=now, mode=run.mode)
        return run.direct

    def _shard_of(self, client_id: str) -> int:
        return shard_of(client_id, self._runtime.settings.shards)

    def _queue_of(self, shard: int) -> int:
        return queue_of(shard, self._runtime.settings.usage_queues)


def _tell_lost(message: Outgoing) -> None:
    """Log an event that nobody else has: it is money, and can be published by hand."""
    if message.entry_id is None:
        logger.error("billing: the broker did not take this event, which is in no outbox: %s", message.body)
