"""Shards whose Redis does not answer, as on a dead node of a cluster, hold up the relay of no other shard (L10)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from billing.core.clock import SystemClock
from billing.core.errors import Unreachable
from billing.core.rounds import SILENT_MAX
from billing.core.settings import Settings
from billing.credits.values import OutboxEntry
from billing.events.links import Outgoing
from billing.events.publisher import PartlyPublished
from billing.events.relay import Relay

SHARDS = 64


class Outboxes:
    """One event in each shard; some shards are on a server that is dead."""

    def __init__(self, dead: set[int]) -> None:
        self.dead = dead
        self.waiting = dict.fromkeys(range(SHARDS), 1)
        self.asked: list[int] = []

    def node_of(self, shard: int) -> str:
        """Return a node for each shard."""
        return str(shard)

    def outbox(self, shard: int, *, older_than_ms: int, count: int) -> list[OutboxEntry]:
        """Return what waits."""
        assert older_than_ms > 0 < count
        self.asked.append(shard)
        if shard in self.dead:
            message = "billing_redis_url: 'redis+cluster://n:1': the server does not answer (TimeoutError)"
            raise Unreachable(message)
        return [OutboxEntry(entry_id="1-1", event=b"{}", age_ms=60_000)] * self.waiting[shard]

    def forget(self, entries: Sequence[tuple[int, str]]) -> None:
        """Remove what was confirmed."""
        for shard, _ in entries:
            self.waiting[shard] = 0


class Published:
    """A broker that takes everything."""

    def publish_batch(self, queue_number: int, messages: Sequence[Outgoing]) -> None:
        """Confirm."""


def test_l10_one_dead_shard_is_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    """Given one shard that does not answer, when the relay sweeps, then every other is relayed, and the log tells it.

    The sweep does not fail: a loop that failed would pause longer, and the other shards with it.
    """
    outboxes = Outboxes({0})
    relay = Relay(Settings(shards=SHARDS), outboxes, Published(), SystemClock())
    assert relay.sweep() == SHARDS - 1
    assert "shard 0 is not relayed" in caplog.text
    assert [shard for shard, count in outboxes.waiting.items() if count] == [0]
    outboxes.dead.clear()
    assert relay.sweep() == 1


def test_l10_a_dead_third_of_the_shards_starves_no_other() -> None:
    """Given many shards that do not answer, then a sweep waits for a few of them, and the next begins behind these."""
    outboxes = Outboxes(set(range(0, SHARDS, 3)))
    relay = Relay(Settings(shards=SHARDS), outboxes, Published(), SystemClock())
    sweeps = 0
    while any(count for shard, count in outboxes.waiting.items() if shard not in outboxes.dead):
        outboxes.asked.clear()
        relay.sweep()
        assert sum(shard in outboxes.dead for shard in outboxes.asked) <= SILENT_MAX
        sweeps += 1
        assert sweeps <= SHARDS


def test_l10_a_broker_that_stops_is_no_silence_of_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a publish that fails, then the sweep ends, and the next begins with that shard and goes through all."""
    outboxes, published = Outboxes(set()), Published()
    relay = Relay(Settings(shards=SHARDS), outboxes, published, SystemClock())

    def stop(_queue: int, messages: Sequence[Outgoing]) -> None:
        if messages[0].shard == 5:
            message = "billing_broker_url: the broker blocks"
            raise PartlyPublished(message)

    monkeypatch.setattr(published, "publish_batch", stop)
    assert relay.sweep() == 5
    monkeypatch.undo()
    outboxes.asked.clear()
    assert relay.sweep() == SHARDS - 5
    assert outboxes.asked == [*range(5, SHARDS), *range(5)]


def test_l9_a_redis_that_is_dead_altogether_costs_a_few_waits() -> None:
    outboxes = Outboxes(set(range(SHARDS)))
    relay = Relay(Settings(shards=SHARDS), outboxes, Published(), SystemClock())
    with pytest.raises(Unreachable):
        relay.sweep()
    assert outboxes.asked == [*range(SILENT_MAX)]
    with pytest.raises(Unreachable):
        relay.sweep()
    assert outboxes.asked == [*range(2 * SILENT_MAX)]
