"""Publishes the events of a process' runs, and keeps those that no broker has confirmed, to publish them again (L3).

An event that a bucket has settled is in Redis' outbox too, for the relay: whoever publishes it, and however often, the
log takes it once. Kept here it outlives a Redis that loses what it wrote last. A direct event is in no outbox: whoever
wants it published calls again until it is.
"""

from __future__ import annotations

import collections
import logging
import threading
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


class Events:
    """The events of one process on their way to the broker. Threads may share it."""

    def __init__(self, runtime: Runtime, pending: Pending) -> None:
        """`pending` removes confirmed outbox entries, and calls `publish_again` whenever it pays."""
        self._runtime, self._pending = runtime, pending
        self._kept: collections.deque[Outgoing] = collections.deque()
        self._bytes = 0
        self._is_over = False
        self._lock = threading.Lock()
        pending.also(self.publish_again)

    def __len__(self) -> int:
        """Return how many events are kept."""
        return len(self._kept)

    def publish(self, client_id: str, event: bytes, entry_id: str) -> None:
        """Publish a settled event. Where the broker does not take it, it is kept, and stays in the outbox besides."""
        shard = self._shard_of(client_id)
        message = Outgoing(body=event, shard=shard, entry_id=entry_id)
        try:
            self._runtime.publisher.publish(self._queue_of(shard), event, shard=shard, entry_id=entry_id)
        except Retryable as error:
            logger.warning("billing: an event of client %s waits for the broker: %s", client_id, error)
            self._keep([message])
        except BaseException:
            # A time limit, or Ctrl-C, came upon it.
            self._keep([message])
            raise
        else:
            self._confirmed([message])

    def publish_direct(self, run: Run, lines: Sequence[UsageLine]) -> None:
        """Publish the charge of a run that no bucket has taken, the same on every try. Raises `Retryable`."""
        if run.direct is None:
            now = to_milliseconds(self._runtime.clock.now())
            run.direct = encode_direct(run.head, lines, settlement_id=run.settlement_id, occurred_at=now)
        shard = self._shard_of(run.identity.client_id)
        self._runtime.publisher.publish(self._queue_of(shard), run.direct, shard=shard, entry_id=None)

    def publish_again(self) -> None:
        """Publish what is kept, the oldest first, as far as the broker takes it."""
        for _ in range(-(-EVENTS_MAX // SLICE)):
            messages = self._take()
            if not messages:
                break
            left = messages
            try:
                left = self._published(messages)
            finally:
                self._keep(left, first=True)
            if left:
                break
        if not self._kept:
            self._is_over = False

    def _published(self, messages: Sequence[Outgoing]) -> list[Outgoing]:
        """Publish some events; return those that the broker did not take."""
        by_queue: dict[int, list[Outgoing]] = collections.defaultdict(list)
        for message in messages:
            by_queue[self._queue_of(message.shard)].append(message)
        left: list[Outgoing] = []
        for queue, own in by_queue.items():
            confirmed = len(own)
            if not left:
                try:
                    self._runtime.publisher.publish_batch(queue, own)
                except PartlyPublished as error:
                    confirmed = error.confirmed
            else:
                confirmed = 0
            self._confirmed(own[:confirmed])
            left += own[confirmed:]
        return left

    def _confirmed(self, messages: Sequence[Outgoing]) -> None:
        if broker.confirms(self._runtime.settings):
            for message in messages:
                if message.entry_id is not None:
                    self._pending.confirmed((message.shard, message.entry_id))

    def _keep(self, messages: Sequence[Outgoing], *, first: bool = False) -> None:
        """Keep events within the bounds; `first`: before all others, in their order."""
        if not messages:
            return
        with self._lock:
            (self._kept.extendleft if first else self._kept.extend)(reversed(messages) if first else messages)
            self._bytes += sum(len(message.body) for message in messages)
            is_over = len(self._kept) > EVENTS_MAX or self._bytes > BYTES_MAX
            while len(self._kept) > EVENTS_MAX or self._bytes > BYTES_MAX:
                self._bytes -= len(self._kept.popleft().body)
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

    def _take(self) -> list[Outgoing]:
        with self._lock:
            taken = [self._kept.popleft() for _ in range(min(SLICE, len(self._kept)))]
            self._bytes -= sum(len(message.body) for message in taken)
        return taken

    def _shard_of(self, client_id: str) -> int:
        return shard_of(client_id, self._runtime.settings.shards)

    def _queue_of(self, shard: int) -> int:
        return queue_of(shard, self._runtime.settings.usage_queues)
