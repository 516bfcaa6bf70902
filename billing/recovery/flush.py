"""Makes sure that everything published before now is in the log: outbox entries, then a marker, per usage queue.

Each queue has a publisher, a marker and a result of its own: one without a broker's leader or without a consumer stops
no other, nor does a shard whose outbox cannot be read (L10). All markers are sent first and awaited together,
`MARKER_SECONDS` at most (L9).
"""

from __future__ import annotations

import collections
import contextlib
import functools
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from billing.connections import broker, postgres
from billing.core.errors import Retryable, Unreachable
from billing.core.shards import queue_of
from billing.events.links import Outgoing
from billing.events.marker import encode_marker
from billing.events.publisher import Publisher
from billing.recovery import facts
from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: How long the markers of one flush may take before the rebuild of their shards begins anew.
MARKER_SECONDS: Final = 60.0
_MARKER_POLL_SECONDS: Final = 0.1
_OUTBOX_SLICE: Final = 500


class Flush:
    """Sends markers through the usage queues of some shards. `pause` waits, and raises when the rebuild must stop."""

    def __init__(
        self, runtime: Runtime, pause: Callable[[float], None], *, marker_seconds: float = MARKER_SECONDS
    ) -> None:
        self._runtime, self._pause, self._marker_seconds = runtime, pause, marker_seconds

    def arrived(self, shards: Iterable[int], *, outboxes: bool) -> Iterator[int]:
        """Yield each shard whose marker is committed, as soon as it is. With `outboxes`, these are published first.

        What is not yielded within the bound is not flushed: its queue has no consumer, or its broker does not answer.
        """
        by_queue: dict[int, list[int]] = collections.defaultdict(list)
        for shard in shards:
            by_queue[queue_of(shard, self._runtime.settings.usage_queues)].append(shard)
        waiting: dict[int, uuid.UUID] = {}
        for queue, members in by_queue.items():
            try:
                waiting[queue], by_queue[queue] = self._send(queue, members, outboxes=outboxes)
            except Retryable as error:
                logger.warning("billing: usage queue %d takes no marker: %s", queue, error)
        deadline = time.monotonic() + self._marker_seconds
        while waiting:
            last_look = time.monotonic() > deadline
            for queue in [queue for queue, token in waiting.items() if self._is_committed(token)]:
                del waiting[queue]
                yield from by_queue[queue]
            if last_look:
                break
            if waiting:
                self._pause(_MARKER_POLL_SECONDS)
        for queue in waiting:
            logger.warning("billing: usage queue %d: no consumer within %g s", queue, self._marker_seconds)

    def _send(self, queue: int, shards: list[int], *, outboxes: bool) -> tuple[uuid.UUID, list[int]]:
        """Return the token of the marker, and the shards that it tells of: not those whose Redis is silent."""
        token, flushed = uuid.uuid4(), []
        with contextlib.closing(Publisher(self._runtime.settings, self._runtime.clock)) as publisher:
            for shard in shards:
                try:
                    if outboxes:
                        self._publish_outbox(publisher, queue, shard)
                except _Silent as error:
                    logger.warning("billing: the outbox of shard %d is not flushed: %s", shard, error)
                else:
                    flushed.append(shard)
            body = encode_marker(token=token, shard=shards[0])
            publisher.publish(queue, body, shard=shards[0], entry_id=None)
        return token, flushed

    def _publish_outbox(self, publisher: Publisher, queue: int, shard: int) -> None:
        buckets, settings = self._runtime.buckets, self._runtime.settings
        # Without confirms entries stay until their rows are committed; each is sent once more, ahead of the marker.
        confirms = broker.confirms(settings)
        count = _OUTBOX_SLICE if confirms else settings.outbox_entries_max
        while entries := _asked(functools.partial(buckets.outbox, shard, older_than_ms=0, count=count)):
            publisher.publish_batch(
                queue, [Outgoing(body=entry.event, shard=shard, entry_id=entry.entry_id) for entry in entries]
            )
            if self._runtime.observer is not None:
                self._runtime.observer.relayed(len(entries))
            if not confirms:
                return
            known = [(shard, entry.entry_id) for entry in entries]
            _asked(functools.partial(buckets.forget, known))

    def _is_committed(self, token: uuid.UUID) -> bool:
        with postgres.reaching(self._runtime.settings), self._runtime.engine.connect() as connection:
            return facts.marker_committed(connection, token)


class _Silent(Retryable):
    """Redis does not answer for a shard, whatever the broker does."""


def _asked(ask: Callable[[], T]) -> T:
    try:
        return ask()
    except Unreachable as error:
        raise _Silent(str(error)) from error
