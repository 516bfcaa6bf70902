"""What the tests of the reaper share: holds that are due on a real server, and results that the test says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import redis
from celery import states

from billing.core.clock import SystemClock, to_milliseconds
from billing.core.credits import CREDITS_MAX
from billing.core.ids import run_id
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.credits.buckets import Buckets
from billing.credits.values import Hold, ReserveOutcome, SettleReply
from billing.events.usage_event import Draft, EventHead, UsageLine, encode_draft, encode_head
from billing.task.reaper import Reaper, StoredResult

SHARDS = 4
#: A client of each shard.
CLIENTS = [next(name for name in map(str, range(100)) if shard_of(name, SHARDS) == shard) for shard in range(SHARDS)]
PRICED_AT = to_milliseconds(datetime.now(UTC))
SUCCESS = StoredResult(state=states.SUCCESS)


class LaterClock(SystemClock):
    """A clock that is ahead, or not."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        """Return the present and how much the clock is ahead."""
        return super().now() + self.ahead


class Scene:
    """Buckets on a real server, and a reaper whose results the test says."""

    def __init__(self, redis_url: str) -> None:
        self.redis = redis.Redis.from_url(redis_url, protocol=2)
        self.buckets = Buckets(
            self.redis, shards=SHARDS, lease_seconds=3_600, settled_retention_seconds=3_600, outbox_entries_max=1_000
        )
        self.clock = LaterClock()
        self.result: Callable[[str], StoredResult] = lambda _: SUCCESS
        self.asked: list[str] = []
        self.published: list[str] = []
        #: What the reaper told of holds that are gone: credits charged, or None.
        self.told: list[int | None] = []
        self.reaper = self.make_reaper()
        for shard, client in enumerate(CLIENTS):
            assert self.buckets.verify(shard, expected=None)
            self.buckets.open_client(client)
            self.buckets.grant(client, 1, 1_000)

    def make_reaper(self, *, sweep_batch: int = 100) -> Reaper:
        """Return a reaper of these buckets."""
        settings = Settings(shards=SHARDS, sweep_batch=sweep_batch)
        return Reaper(settings, self.buckets, self._read, self._publish, self.clock, tell=self.told.append)

    def _read(self, task_id: str) -> StoredResult:
        self.asked.append(task_id)
        return self.result(task_id)

    def _publish(self, client_id: str, _: SettleReply) -> None:
        self.published.append(client_id)

    def due(self, task_id: str, *, client: str = CLIENTS[0], actual: int = 10, lines: bytes = b"") -> UUID:
        """Hold 10 credits for a run whose draft says `actual`, and have its lease run out, the oldest first."""
        run = run_id(client, task_id, nesting=0, nonce="", at_milliseconds=PRICED_AT)
        head = EventHead(
            run_id=run,
            client_id=client,
            correlation_id=task_id,
            root_id=task_id,
            task="t",
            attempt=1,
            submitted_at=None,
            price_version=1,
        )
        parts = [actual] if actual <= CREDITS_MAX else [CREDITS_MAX, actual - CREDITS_MAX]
        draft = Draft(
            priced_at=PRICED_AT, lines=tuple(UsageLine(sku="page", quantity=1, credits=part) for part in parts)
        )
        hold = Hold(
            run_id=run,
            client_id=client,
            sku="page",
            credits=10,
            token="dead",
            price_version=1,
            attempt=1,
            head=encode_head(head),
            lines=lines or encode_draft(draft),
        )
        assert self.buckets.reserve(hold).outcome is ReserveOutcome.HELD
        self.redis.zadd(f"{{billing:{shard_of(client, SHARDS)}}}:leases", {run.hex: len(self.leases()) + 1})
        return run

    def leases(self) -> dict[UUID, int]:
        """Return the deadline of every hold."""
        return {hold.run_id: hold.deadline_ms for shard in range(SHARDS) for hold in self.buckets.held(None, shard)}

    def sweep(self) -> int:
        """Sweep, the shards having been swept just now."""
        now = to_milliseconds(datetime.now(UTC))
        for shard in range(SHARDS):
            self.redis.hset(f"{{billing:{shard}}}:swept", mapping={"at": now, "grace": 0})
        return self.reaper.sweep()

    def assert_extended(self, run: UUID) -> None:
        """Check that the hold is there, and is due a lease from now."""
        assert self.leases()[run] > to_milliseconds(datetime.now(UTC)) + 1_800_000

    def spent(self, client: str = CLIENTS[0]) -> tuple[int, int]:
        """Return what a client spent and what is held."""
        balance = self.buckets.balance(client)
        assert balance is not None
        assert balance.granted + balance.owed == balance.available + balance.held + balance.spent
        return balance.spent, balance.held
