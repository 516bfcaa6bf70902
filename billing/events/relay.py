"""The relay: publishes what waits in the outboxes, oldest first, and removes what RabbitMQ has confirmed.

It is the second chance of every event: a worker that died between settle and publish, a broker that was away. Events
of one shard keep their order. On a transport without confirms an entry is published again once a minute until the
consumer, having committed its row, removes it.
"""

from __future__ import annotations

import collections
import logging
from collections.abc import Sequence
from typing import Final, Protocol

from billing.connections import broker
from billing.core.clock import Clock
from billing.core.errors import Unreachable
from billing.core.rounds import Rounds
from billing.core.settings import Settings
from billing.core.shards import queue_of
from billing.credits.values import OutboxEntry
from billing.events.links import Outgoing
from billing.events.publisher import PartlyPublished

logger = logging.getLogger(__name__)

#: Without confirms: how long an entry is given to come out of the consumer before it is published again.
AGAIN_SECONDS: Final = 60.0
#: Turns of one shard in one sweep: without them a shard would be relayed at one batch a second (L9).
TURNS_MAX: Final = 20
#: Without confirms: entries whose last publish is remembered; one that is forgotten is only published sooner (L9).
REMEMBERED_MAX: Final = 100_000

Entry = tuple[int, str]


class _BrokerAwayError(Exception):
    """A publish failed: no other shard's would do better."""

    def __init__(self, confirmed: int) -> None:
        super().__init__(confirmed)
        self.confirmed = confirmed


class Outbox(Protocol):
    """What the relay asks of the buckets."""

    def node_of(self, shard: int) -> str:
        """Return the name of the server that has a shard."""
        ...

    def outbox(self, shard: int, *, older_than_ms: int, count: int) -> Sequence[OutboxEntry]:
        """Return a shard's oldest entries."""
        ...

    def forget(self, entries: Sequence[Entry]) -> None:
        """Remove entries that are published for sure."""
        ...


class Publishing(Protocol):
    """What the relay asks of the publisher."""

    def publish_batch(self, queue_number: int, messages: Sequence[Outgoing]) -> None:
        """Publish in order. Raises `PartlyPublished`."""
        ...


class Relay:
    """Walks the shards. One at a time is enough; two do no harm, since the log knows an event that comes twice."""

    def __init__(self, settings: Settings, buckets: Outbox, publisher: Publishing, clock: Clock) -> None:
        self._settings = settings
        self._buckets = buckets
        self._publisher = publisher
        self._clock = clock
        self._confirms = broker.confirms(settings)
        self._sent: collections.OrderedDict[Entry, float] = collections.OrderedDict()
        # Where the relay is the one who publishes, an event need not be old.
        after_seconds = 0.0 if settings.publish == "relay" else settings.relay_after_seconds
        self._older_than_ms = round(after_seconds * 1_000)
        self._rounds = Rounds(buckets.node_of, clock)
        self._next_shard = 0

    def sweep(self) -> int:
        """Publish what waits, a batch of each shard in turn, within a bound; return how many events were published.

        Shards that gave a full batch get another turn, so that a busy one is drained and holds up no other (L10). The
        first publish that fails ends the sweep, and the next sweep begins with that shard. A node that does not answer
        is left out, and asked again after a pause of its own; raises `Unreachable` when none answers.
        """
        shards = self._settings.shards
        waiting = [(self._next_shard + step) % shards for step in range(shards)]
        counts: dict[int, int] = {}
        published = 0

        def turn(shard: int) -> int:
            counts[shard] = self._sweep_shard(shard)
            return counts[shard]

        for number in range(TURNS_MAX):
            counts.clear()
            try:
                self._rounds.visit(waiting, turn)
            except _BrokerAwayError as stopped:
                return published + sum(counts.values()) + stopped.confirmed
            except Unreachable:
                if not number:
                    raise
            published += sum(counts.values())
            waiting = [shard for shard, count in counts.items() if count == self._settings.relay_batch]
            if not waiting:
                break
        return published

    def _sweep_shard(self, shard: int) -> int:
        """Publish a batch of a shard. Raises `Unreachable` of its Redis, and `_BrokerAwayError`."""
        try:
            return self._published(shard)
        except PartlyPublished as error:
            self._next_shard = shard
            logger.warning("billing: the relay stops at shard %d: %s", shard, error)
            raise _BrokerAwayError(error.confirmed) from error
        except Unreachable as error:
            logger.warning("billing: shard %d is not relayed: %s", shard, error)
            raise

    def _published(self, shard: int) -> int:
        entries = self._buckets.outbox(shard, older_than_ms=self._older_than_ms, count=self._settings.relay_batch)
        if not self._confirms:
            entries = self._due(shard, entries)
        if not entries:
            return 0
        messages = [Outgoing(body=entry.event, shard=shard, entry_id=entry.entry_id) for entry in entries]
        try:
            self._publisher.publish_batch(queue_of(shard, self._settings.usage_queues), messages)
        except PartlyPublished as error:
            self._forget(shard, entries[: error.confirmed])
            raise
        self._forget(shard, entries)
        return len(entries)

    def _forget(self, shard: int, entries: Sequence[OutboxEntry]) -> None:
        """Remove what was confirmed; without confirms, only remember when it was sent."""
        if self._confirms:
            if entries:
                self._buckets.forget([(shard, entry.entry_id) for entry in entries])
            return
        now = self._clock.monotonic()
        for entry in entries:
            self._sent[shard, entry.entry_id] = now
            self._sent.move_to_end((shard, entry.entry_id))
        while len(self._sent) > REMEMBERED_MAX:
            self._sent.popitem(last=False)

    def _due(self, shard: int, entries: Sequence[OutboxEntry]) -> list[OutboxEntry]:
        """Return the entries that were not published within the last minute."""
        before = self._clock.monotonic() - AGAIN_SECONDS
        while self._sent and next(iter(self._sent.values())) <= before:
            self._sent.popitem(last=False)
        return [entry for entry in entries if (shard, entry.entry_id) not in self._sent]
