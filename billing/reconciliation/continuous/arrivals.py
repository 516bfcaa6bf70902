"""Proves that the log has what was settled on a shard before some moment, so that no event can be on its way.

First the shard's outbox is looked at: what was settled before its oldest entry has been published. Then a marker goes
through the shard's usage queue; once the consumer has committed it, all that was published before it is in the log.
Without that proof (no consumer, no broker, an outbox that stands) nothing is called missing.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import uuid
from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, delete, select

from billing.core.errors import Retryable
from billing.core.shards import queue_of
from billing.events.marker import encode_marker
from billing.events.publisher import Publisher
from billing.schema.tables import recovery_marker
from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: How long a marker is waited for; then another one is sent.
_MARKER_SECONDS: Final = 60.0
#: How long a queue that took no marker is left alone.
_PAUSE_SECONDS: Final = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Sent:
    """A marker on its way: what it will prove, per shard, in ms of Redis' clock."""

    token: uuid.UUID | None
    proves: Mapping[int, int]
    until: float


class Arrivals:
    """What is proven of each shard: all that was settled before this moment is in the log."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._sent: dict[int, _Sent] = {}
        self._proven: dict[int, int] = {}

    def proven(self, shard: int, at_ms: int) -> bool:
        """Return whether everything that was settled on a shard up to a moment, its millisecond included, is logged."""
        return self._proven.get(shard, 0) > at_ms

    def look(self, connection: Connection) -> None:
        """Take the markers that the consumer has committed, and remove them."""
        tokens = {sent.token: queue for queue, sent in self._sent.items() if sent.token is not None}
        if tokens:
            query = select(recovery_marker.c.token).where(recovery_marker.c.token.in_(tokens))
            committed = list(connection.execute(query).scalars())
            for token in committed:
                for shard, at_ms in self._sent.pop(tokens[token]).proves.items():
                    self._proven[shard] = max(at_ms, self._proven.get(shard, 0))
            if committed:
                connection.execute(delete(recovery_marker).where(recovery_marker.c.token.in_(committed)))
        now = self._runtime.clock.monotonic()
        for queue in [queue for queue, sent in self._sent.items() if sent.until < now]:
            del self._sent[queue]

    def ask(self, read_at_ms: Mapping[int, int]) -> None:
        """Send a marker to the usage queue of each shard, unless one is on its way there.

        `read_at_ms`: a moment of each shard's clock that is over.
        """
        by_queue: dict[int, list[int]] = collections.defaultdict(list)
        for shard in sorted(read_at_ms):
            queue = queue_of(shard, self._runtime.settings.usage_queues)
            if queue not in self._sent:
                by_queue[queue].append(shard)
        for queue, members in by_queue.items():
            since = self._runtime.buckets.outboxes_since_ms(members)
            # What was settled before the oldest entry, or before that moment if there is none, is with the broker.
            proves = {shard: min(read_at_ms[shard], since[shard] or read_at_ms[shard]) for shard in members}
            now = self._runtime.clock.monotonic()
            try:
                token = self._send(queue, members[0])
            except Retryable as error:
                logger.warning("billing: usage queue %d takes no marker of the reconciler: %s", queue, error)
                self._sent[queue] = _Sent(token=None, proves={}, until=now + _PAUSE_SECONDS)
            else:
                self._sent[queue] = _Sent(token=token, proves=proves, until=now + _MARKER_SECONDS)

    def _send(self, queue: int, shard: int) -> uuid.UUID:
        token = uuid.uuid4()
        with contextlib.closing(Publisher(self._runtime.settings, self._runtime.clock)) as publisher:
            publisher.publish(queue, encode_marker(token=token, shard=shard), shard=shard, entry_id=None)
        return token
