"""Rebuilds the shards whose Redis lost, or may have lost, something (L6). Simple, correct and slow.

While a shard recovers, nothing is admitted on it. The steps are: let workers assert the holds of running attempts;
publish what waits in the outboxes; send a marker through each usage queue and wait until it is committed, so that
everything published before is in the log; then, under the shard's exclusive lock, begin a new epoch, write every
bucket from grants and log, and open the shard on that very server. Each step may die; the next rebuild begins anew.
"""

from __future__ import annotations

import collections
import logging
import threading
import time
import uuid
from collections.abc import Iterable
from typing import Final

from sqlalchemy import text

from billing.connections import broker, postgres
from billing.core.errors import Recovering, Retryable
from billing.core.shards import queue_of
from billing.credits.rebuilding import plan_bucket
from billing.credits.values import RebuildOutcome, StoredHold
from billing.events.marker import encode_marker
from billing.ledger import locks, rebuilds
from billing.recovery import facts
from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: How long a marker may take through its queue before the rebuild gives up and begins anew (L9).
MARKER_SECONDS: Final = 60.0
_MARKER_POLL_SECONDS: Final = 0.1
_OUTBOX_SLICE: Final = 500
_RENEWALS_PER_LEASE: Final = 3


class Rebuilder:
    """Looks for shards that are not trusted, and rebuilds them. One at a time in the fleet leads."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End a wait that is going on; the rebuild begins anew elsewhere."""
        self._stopped.set()

    def step(self) -> int:
        """Rebuild what needs it; return how many shards were. Raises `Retryable` when it must be tried again."""
        runtime = self._runtime
        with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
            wanted = rebuilds.requested(connection)
            known = facts.shards_with_clients(connection)
        lost = {shard for shard in known if self._is_lost(shard)} | (wanted.keys() & known)
        if not lost:
            return 0
        with postgres.reaching(runtime.settings), runtime.engine.begin() as leader:
            if not locks.try_lead_recovery(leader, 0):
                return 0
            # The leader's connection idles through waits, and its lock must outlive none of them unseen.
            leader.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            return self._rebuild(sorted(lost), wanted)

    def _is_lost(self, shard: int) -> bool:
        verified, current = self._runtime.buckets.server_of(shard)
        return verified != current

    def _rebuild(self, shards: list[int], wanted: dict[int, str]) -> int:
        buckets = self._runtime.buckets
        for shard in shards:
            logger.warning("billing: shard %d is rebuilt: %s", shard, wanted.get(shard, "its server lost its trust"))
            buckets.close(shard)
        self._wait(self._runtime.settings.lease_seconds / _RENEWALS_PER_LEASE + 1)
        self._flush(shards)
        for shard in shards:
            self._write(shard)
        return len(shards)

    def _flush(self, shards: list[int]) -> None:
        """Publish the shards' outboxes, and wait until the consumer has committed everything before now."""
        settings = self._runtime.settings
        by_queue: dict[int, list[int]] = collections.defaultdict(list)
        for shard in shards:
            by_queue[queue_of(shard, settings.usage_queues)].append(shard)
        tokens = []
        for queue, members in by_queue.items():
            for shard in members:
                self._publish_outbox(queue, shard)
            token = uuid.uuid4()
            body = encode_marker(token=token, shard=members[0])
            self._runtime.publisher.publish(queue, body, shard=members[0], entry_id=None)
            tokens.append(token)
        deadline = time.monotonic() + MARKER_SECONDS
        for token in tokens:
            while not self._is_committed(token):
                if time.monotonic() > deadline:
                    message = f"rebuild: no consumer committed a marker within {MARKER_SECONDS:g} s"
                    raise Recovering(message)
                self._wait(_MARKER_POLL_SECONDS)

    def _publish_outbox(self, queue: int, shard: int) -> None:
        runtime = self._runtime
        if not broker.confirms(runtime.settings):
            # Entries stay until their rows are committed; each is published once more here, ahead of the marker.
            entries = runtime.buckets.outbox(shard, older_than_ms=0, count=runtime.settings.outbox_entries_max)
            for entry in entries:
                runtime.publisher.publish(queue, entry.event, shard=shard, entry_id=entry.entry_id)
            return
        while entries := runtime.buckets.outbox(shard, older_than_ms=0, count=_OUTBOX_SLICE):
            for entry in entries:
                runtime.publisher.publish(queue, entry.event, shard=shard, entry_id=entry.entry_id)
            runtime.buckets.forget([(shard, entry.entry_id) for entry in entries])

    def _is_committed(self, token: uuid.UUID) -> bool:
        with postgres.reaching(self._runtime.settings), self._runtime.engine.connect() as connection:
            return facts.marker_committed(connection, token)

    def _write(self, shard: int) -> None:
        """Write a shard's buckets at a new epoch, and open it."""
        runtime, buckets = self._runtime, self._runtime.buckets
        _, server = buckets.server_of(shard)
        asserts = buckets.asserts_of(shard)
        with postgres.reaching(runtime.settings), runtime.engine.begin() as connection:
            locks.lock_shard_exclusive(connection, shard)
            began = facts.database_time(connection)
            clients = facts.begin_epoch(connection, shard)
            held = buckets.held(None, shard)
            logged = facts.logged_runs(connection, [hold.run_id for hold in held])
            holds = _by_client(hold for hold in held if hold.run_id not in logged)
            for found in clients:
                plan = plan_bucket(grants=found.grants, spent=found.spent, holds=holds.get(found.client_id, []))
                outcome = buckets.rebuild(found.client_id, found.epoch, plan, server=server, asserts=asserts)
                if outcome is not RebuildOutcome.REBUILT:
                    raise _again(shard, outcome.name)
            facts.mark_grants_applied(connection, shard)
            rebuilds.answered(connection, shard, began)
        if not buckets.verify(shard, expected=server, asserts=asserts):
            raise _again(shard, RebuildOutcome.MOVED.name)
        logger.warning("billing: shard %d is open again: %d clients, %d holds", shard, len(clients), len(held))

    def _wait(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            message = "rebuild: this worker stops; another one begins anew"
            raise Recovering(message)


def _by_client(held: Iterable[StoredHold]) -> dict[str, list[tuple[uuid.UUID, int]]]:
    holds: dict[str, list[tuple[uuid.UUID, int]]] = collections.defaultdict(list)
    for hold in sorted(held, key=lambda hold: (hold.created_ms, hold.run_id)):
        holds[hold.client_id].append((hold.run_id, hold.credits))
    return holds


def _again(shard: int, reason: str) -> Retryable:
    return Recovering(f"rebuild of shard {shard}: {reason.lower()} meanwhile; it begins anew")
