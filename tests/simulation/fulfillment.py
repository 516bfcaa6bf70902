"""The loops of the fulfillment worker, its consumer and its rebuilders: the project's own, over the world's servers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from billing.core.errors import Retryable
from billing.core.shards import queue_of, shard_of
from billing.credits.granting import VoidOutcome
from billing.credits.posting import PostOutcome
from billing.credits.values import GrantOutcome, SettleReply
from billing.events.relay import Relay
from billing.events.usage_event import UsageEvent
from billing.fulfillment.decoder import decode
from billing.fulfillment.delivery import Delivered
from billing.task.reaper import Reaper
from tests.simulation.broker import Publishing
from tests.simulation.faults import Killed
from tests.simulation.log import Locked
from tests.simulation.recovery import Rebuilder

if TYPE_CHECKING:
    from tests.simulation.world import World


class Fulfillment:
    """Each of its steps may fail, or die half way and be done again by another worker."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rebuilders = [Rebuilder(world), Rebuilder(world)]
        self._relay, self._reaper = self._make_relay(), self._make_reaper()
        #: Until when the disk keeps a queue's commit waiting.
        self._commit_at: dict[int, int] = {}

    def apply_grants(self) -> None:
        """Bring open grants into their buckets."""
        for row in [self._world.log.grants[grant_id] for grant_id in self._world.log.unapplied]:
            if shard_of(row.client_id, self._world.settings.shards) in self._world.log.locked:
                continue
            outcome = self._guarded(
                functools.partial(self._wire().grant, row.client_id, row.grant_id, row.credits, row.terms)
            )
            if outcome in (GrantOutcome.GRANTED, GrantOutcome.ALREADY):
                self._world.log.applied(row.grant_id)
            elif outcome in (GrantOutcome.UNKNOWN_CLIENT, GrantOutcome.CORRUPT):
                self._world.bucket_missing(row.client_id)

    def apply_voids(self) -> None:
        """Bring voids into their buckets."""
        log = self._world.log
        for grant_id in list(log.endings.voids):
            client_id = log.grants[grant_id].client_id
            if shard_of(client_id, self._world.settings.shards) in log.locked:
                continue
            outcome = self._guarded(functools.partial(self._wire().void, client_id, grant_id))
            if outcome in (VoidOutcome.VOIDED, VoidOutcome.ALREADY):
                log.endings.voids.pop(grant_id, None)
            elif outcome in (VoidOutcome.UNKNOWN_CLIENT, VoidOutcome.CORRUPT):
                self._world.bucket_missing(client_id)

    def lapse(self) -> None:
        """End the grants whose time is over."""
        for shard in range(self._world.settings.shards):
            self._guarded(functools.partial(self._world.log.endings.lapse, self._world.log, self._wire(), shard))

    def apply_postings(self) -> None:
        """Bring postings into their buckets."""
        for (client_id, epoch), rows in self._world.log.waiting().items():
            outcome = self._guarded(functools.partial(self._wire().post, client_id, epoch, rows))
            if outcome in (PostOutcome.POSTED, PostOutcome.ALREADY):
                self._world.log.mark_applied(client_id, epoch, rows)
                self._world.counts["posted"] += 1
            elif outcome in (PostOutcome.UNKNOWN_CLIENT, PostOutcome.CORRUPT, PostOutcome.UNCOVERED):
                self._world.bucket_missing(client_id)

    def relay_outboxes(self) -> None:
        """Publish what waits in the outboxes."""
        if self._guarded(self._relay.sweep) is None:
            self._relay = self._make_relay()

    def reap(self) -> None:
        """Resolve the holds whose lease has run out."""
        self._publish_kept()
        try:
            self._reaper.sweep()
        except Retryable:
            self._reaper = self._make_reaper()
        except Killed:
            self._reaper = self._make_reaper()
            self._world.observed.excuses.reaper_died()

    def consume(self) -> None:
        """Take a batch, write it, ack it: the consumer may die between any two of these."""
        queue = self._world.chance.whole(0, self._world.settings.usage_queues - 1)
        waiting, batch = self._world.broker.usage[queue], self._world.batches[queue]
        if not self._world.broker.up:
            return
        if not batch:
            batch += list(waiting)[: self._world.chance.whole(1, 20)]
            return
        if self._is_faulty():
            batch.clear()  # it died before it wrote: the batch is delivered again
            self._commit_at.pop(queue, None)
            self._world.log.shared.pop(queue, None)
            return
        name = f"billing.usage.{queue}"
        messages = [Delivered(body=body, queue=name, decoded=decode(body)) for body in batch]
        try:
            if self._is_slow(queue, messages):
                return
            self._world.log.write(messages, self._world.clock.ms)
        except Locked:
            return
        if self._is_faulty():
            self._world.rates.tally["commits whose answer was lost"] += 1
        else:
            for _ in batch:
                waiting.popleft()
        batch.clear()

    def _is_slow(self, queue: int, messages: Sequence[Delivered]) -> bool:
        """Whether the disk lets the commit of a batch wait: the transaction has its shards' locks meanwhile."""
        world, now = self._world, self._world.clock.elapsed_ms
        if queue not in self._commit_at and world.rates.slow_disk and world.chance.once_in(world.rates.slow_disk):
            names = {message.decoded.client_id for message in messages if isinstance(message.decoded, UsageEvent)}
            world.log.share(queue, {shard_of(name, world.settings.shards) for name in names})
            world.rates.tally["commits that took long"] += 1
            self._commit_at[queue] = now + world.chance.whole(200, 20_000)
        if now < self._commit_at.get(queue, 0):
            return True
        self._commit_at.pop(queue, None)
        world.log.shared.pop(queue, None)
        return False

    def rebuild(self) -> None:
        """Let a rebuilder do its next step, or die."""
        number = 0 if self._world.chance.once_in(2) else 1
        # The second one leads only where the first one lost its lock unseen.
        if number == 1 and not self._world.chance.once_in(20):
            number = 0
        rebuilder = self._rebuilders[number]
        if self._world.clock.elapsed_ms < rebuilder.waits_until_ms:
            return
        try:
            rebuilder.waits_until_ms = self._world.clock.elapsed_ms + next(rebuilder.steps)
        except Killed:
            self._world.counts["killed rebuilders"] += 1
            self._rebuilders[number] = Rebuilder(self._world)

    def _wire(self) -> Any:
        return self._world.to_redis()

    def _make_relay(self) -> Relay:
        broker = self._world.to_broker()
        return Relay(self._world.settings, self._wire(), Publishing(broker), self._world.clock)

    def _make_reaper(self) -> Reaper:
        return Reaper(
            self._world.settings, self._wire(), self._world.results.read, self._publish_reaped, self._world.clock
        )

    def _publish_reaped(self, client_id: str, reply: SettleReply) -> None:
        """Publish what the reaper has settled, or keep it to be published again; it is in the outbox besides."""
        if reply.event is None:
            return
        self._world.observed.excuses.reaped.append(
            (shard_of(client_id, self._world.settings.shards), reply.event, reply.entry_id)
        )
        if self._is_faulty():
            raise Killed
        self._publish_kept()

    def _publish_kept(self) -> None:
        """Publish what is kept, until the broker takes no more."""
        world, kept = self._world, self._world.observed.excuses.reaped
        while kept and world.broker.up:
            shard, event, entry_id = kept.pop(0)
            world.broker.publish(queue_of(shard, world.settings.usage_queues), event, shard=shard, entry_id=entry_id)

    def _guarded(self, act: Callable[[], Any]) -> Any:
        """Do something that may fail or die; None then."""
        try:
            return act()
        except (Retryable, Killed):
            return None

    def _is_faulty(self) -> bool:
        return self._world.rates.killed > 0 and self._world.chance.once_in(self._world.rates.killed // 3)
