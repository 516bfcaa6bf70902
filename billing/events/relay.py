"""The relay: publishes what waits in the outboxes, oldest first, and removes what RabbitMQ has confirmed.

It is the second chance of every event: a worker that died between settle and publish, a broker that was away. Events
of one shard keep their order. On a transport without confirms an entry is published again once a minute until the
consumer, having committed its row, removes it. A usage queue that takes nothing keeps back its own shards alone (L10).
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
from billing.credits.entries import OutboxEntry
from billing.events.links import Outgoing
from billing.events.publisher import PartlyPublished

logger = logging.getLogger(__name__)

#: Without confirms: how long an entry is given to come out of the consumer before it is published again.
AGAIN_SECONDS: Final = 60.0
#: Turns of one shard in one sweep: without them a shard would be relayed at one batch a second (L9).
TURNS_MAX: Final = 20
#: Usage queues that took nothing, after which a sweep ends: each may cost the bound of a publish (L9). They come last
#: in the next sweep.
FAILURES_MAX: Final = 2
#: Without confirms: entries whose last publish is remembered; one that is forgotten is only published sooner (L9).
REMEMBERED_MAX: Final = 100_000

Entry = tuple[int, str]


class _EnoughError(Exception):
    """So many queues took nothing in this sweep that it ends."""


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
        #: By usage queue that took nothing the last time, the shard at which it stopped; the one that is to be tried
        #: last at the end.
        self._stopped: dict[int, int] = {}

    def sweep(self) -> int:
        """Publish what waits, a batch of each shard in turn, within a bound; return how many events were published.

        Shards that gave a full batch get another turn, so that a busy one is drained and holds up no other (L10). The
        first publish that fails leaves out the shards of its usage queue; the next sweep tries this queue last, from
        that shard on. A node that does not answer is left out, and asked again after a pause of its own; raises
        `Unreachable` when none answers.
        """
        waiting = self._in_order()
        counts: dict[int, int] = {}
        failed: set[int] = set()
        published = 0

        def turn(shard: int) -> int | None:
            queue = queue_of(shard, self._settings.usage_queues)
            if queue in failed:
                return None
            try:
                counts[shard] = self._sweep_shard(shard)
            except PartlyPublished as error:
                counts[shard] = error.confirmed
                failed.add(queue)
                self._note_stop(queue, shard, error)
                if len(failed) == FAILURES_MAX:
                    raise _EnoughError from error
            return counts[shard]

        for number in range(TURNS_MAX):
            counts.clear()
            try:
                self._rounds.visit(waiting, turn)
            except _EnoughError:
                return published + sum(counts.values())
            except Unreachable:
                if not number:
                    raise
            published += sum(counts.values())
            waiting = [shard for shard, count in counts.items() if count == self._settings.relay_batch]
            if not waiting:
                break
        return published

    def _in_order(self) -> list[int]:
        """Return all shards, last those whose queue took nothing, and of each such queue from where it stopped."""
        queues, shards = self._settings.usage_queues, range(self._settings.shards)
        order = [shard for shard in shards if queue_of(shard, queues) not in self._stopped]
        for queue, stopped in self._stopped.items():
            own = [shard for shard in shards if queue_of(shard, queues) == queue]
            at = own.index(stopped)
            order += own[at:] + own[:at]
        return order

    def _note_stop(self, queue: int, shard: int, error: PartlyPublished) -> None:
        self._stopped.pop(queue, None)
        self._stopped[queue] = shard
        logger.warning("billing: the relay leaves usage queue %d at shard %d: %s", queue, shard, error)

    def _sweep_shard(self, shard: int) -> int:
        """Publish a batch of a shard. Raises `PartlyPublished`, and `Unreachable` of its Redis."""
        try:
            return self._published(shard)
        except PartlyPublished:
            raise
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
        queue = queue_of(shard, self._settings.usage_queues)
        try:
            self._publisher.publish_batch(queue, messages)
        except PartlyPublished as error:
            self._forget(shard, entries[: error.confirmed])
            raise
        self._stopped.pop(queue, None)
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
