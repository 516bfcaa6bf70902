"""A rebuilder, step by step: the order of `billing.recovery`, with the project's own plan of a bucket.

Between any two steps others go on, and the rebuilder may die; what its transaction did to the log is then undone,
what it wrote into Redis is not.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from billing.core.errors import Retryable, Unreachable
from billing.core.shards import queue_of, shard_of
from billing.credits.plan import BucketPlan
from billing.credits.rebuilding import plan_bucket
from billing.credits.values import RebuildOutcome, StoredHold
from billing.events.links import Outgoing
from billing.events.marker import encode_marker
from billing.recovery.rebuild import assertion_seconds
from tests.simulation.broker import Publishing

if TYPE_CHECKING:
    from tests.simulation.world import World

#: How long a marker is waited for, in simulated ms.
_MARKER_MS = 60_000


class Rebuilder:
    """Rebuilds what is lost or asked for. `steps` yields the ms that it waits; the world calls it again after that."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._buckets: Any = world.to_redis()
        self._broker = Publishing(world.to_broker())
        self.steps = self._work()
        self.waits_until_ms = 0

    def _work(self) -> Iterator[int]:
        world = self._world
        while True:
            try:
                known = {shard_of(client_id, world.settings.shards) for client_id in world.log.epochs}
                servers = {shard: self._buckets.server_of(shard) for shard in sorted(known)}
                lost = {shard for shard, (verified, current) in servers.items() if verified != current}
                wanted = set(world.log.rebuilds) & known - lost
                if lost:
                    yield from self._rebuild(lost)
                if wanted:
                    arrived = yield from self._flush(wanted, outboxes=False)
                    yield from self._rebuild(arrived)
            except Retryable:
                pass
            yield 1_000

    def _rebuild(self, shards: set[int]) -> Iterator[int]:
        for shard in sorted(shards):
            self._buckets.close(shard)
            yield 0
        yield int(assertion_seconds(self._world.settings) * 1_000)
        arrived = yield from self._flush(shards, outboxes=True)
        for shard in sorted(arrived):
            try:
                yield from self._write(shard)
            except Retryable:
                yield 0

    def _flush(self, shards: set[int], *, outboxes: bool) -> Any:
        """Send what waits in the outboxes, then a marker per queue; return the shards whose marker is committed."""
        world = self._world
        tokens: dict[int, uuid.UUID] = {}
        by_queue: dict[int, list[int]] = {}
        for shard in sorted(shards):
            by_queue.setdefault(queue_of(shard, world.settings.usage_queues), []).append(shard)
        for queue, members in by_queue.items():
            for shard in members if outboxes else ():
                while entries := self._buckets.outbox(shard, older_than_ms=0, count=500):
                    out = [Outgoing(body=entry.event, shard=shard, entry_id=entry.entry_id) for entry in entries]
                    self._broker.publish_batch(queue, out)
                    self._buckets.forget([(shard, entry.entry_id) for entry in entries])
                    yield 0
            tokens[queue] = world.chance_uuid()
            self._broker.publish(
                queue, encode_marker(token=tokens[queue], shard=members[0]), shard=members[0], entry_id=None
            )
            yield 0
        deadline = world.clock.elapsed_ms + _MARKER_MS
        while world.clock.elapsed_ms < deadline and not set(tokens.values()) <= world.log.markers:
            yield 200
        return {shard for queue, token in tokens.items() if token in world.log.markers for shard in by_queue[queue]}

    def _write(self, shard: int) -> Iterator[int]:
        """Begin an epoch and plan under the shard's lock, write the buckets, and open under the lock again."""
        world, log, buckets = self._world, self._world.log, self._buckets
        with log.lock(shard):
            verified, server = buckets.server_of(shard)
            if verified == server:
                raise Unreachable("somebody else has opened it")
            asserts = buckets.asserts_of(shard)
            yield 0
            began = log.requests
            clients = [client_id for client_id in log.epochs if shard_of(client_id, log.shards) == shard]
            there = buckets.epochs(clients)
            epochs = {client_id: max(log.epochs[client_id], there[client_id]) + 1 for client_id in clients}
            held = buckets.held(None, shard)
            for hold in held:
                if hold.run_id in log.history:
                    buckets.mark_logged(hold.client_id, hold.run_id, log.history[hold.run_id].settlement_id)
            yield 0
            owes = {client_id: [row.grant_id for row in log.grants_of(client_id)] for client_id in clients}
            repaid = buckets.repaid(owes)
            plans = {client_id: self._plan(client_id, held, repaid.get(client_id, {})) for client_id in clients}
            # The commit.
            log.begin(epochs)
            log.answered(shard, began)
        yield 0
        for client_id, plan in plans.items():
            outcome = buckets.rebuild(client_id, epochs[client_id], plan, server=server, asserts=asserts)
            if outcome is not RebuildOutcome.REBUILT:
                raise Unreachable(f"rebuild of shard {shard}: {outcome.name}")
            yield 0
        with log.lock(shard):
            if any(log.epochs[client_id] != epoch for client_id, epoch in epochs.items()):
                raise Unreachable(f"rebuild of shard {shard}: stale")
            if not buckets.verify(shard, expected=server, asserts=asserts):
                raise Unreachable(f"rebuild of shard {shard}: moved")
        world.counts["rebuilds"] += 1

    def _plan(self, client_id: str, held: Sequence[StoredHold], repaid: Mapping[int, int]) -> BucketPlan:
        log = self._world.log
        own = [hold for hold in held if hold.client_id == client_id and hold.run_id not in log.history]
        own.sort(key=lambda hold: (hold.created_ms, hold.run_id))
        return plan_bucket(
            grants=[(row.grant_id, row.credits) for row in log.grants_of(client_id)],
            spent=log.spent[client_id],
            holds=[(hold.run_id, hold.credits) for hold in own],
            lent={hold.run_id: hold.grants for hold in own},
            known=log.endings.known(log, client_id, self._world.clock.ms, own, repaid),
        )
