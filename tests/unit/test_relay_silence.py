"""Shards whose Redis does not answer, and usage queues that take nothing, hold up the relay of no other (L10)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from billing.core.clock import SystemClock
from billing.core.errors import Unreachable
from billing.core.rounds import SILENT_MAX
from billing.core.settings import Settings
from billing.credits.entries import OutboxEntry
from billing.events.links import Outgoing
from billing.events.publisher import PartlyPublished
from billing.events.relay import FAILURES_MAX, Relay

SHARDS, QUEUES = 64, 4


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
    """A broker; some queues are stuck, and take no more than the next so many events."""

    def __init__(self) -> None:
        self.stuck: dict[int, int] = {}
        self.refused: list[int] = []

    def publish_batch(self, queue_number: int, messages: Sequence[Outgoing]) -> None:
        """Confirm, or refuse."""
        left = self.stuck.get(queue_number, len(messages))
        if left < len(messages):
            self.refused.append(messages[0].shard)
            self.stuck[queue_number] = 0
            raise PartlyPublished("billing_broker_url: it refused the message", confirmed=left)
        if queue_number in self.stuck:
            self.stuck[queue_number] -= len(messages)


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


def test_l10_a_queue_that_takes_nothing_keeps_back_its_own_shards_alone() -> None:
    """Given a queue that is full or gone, then every other is drained in the same sweep, and it is asked once.

    In the next sweep it comes last, and once it takes events again they are all published.
    """
    outboxes, published = Outboxes(set()), Published()
    relay = Relay(Settings(shards=SHARDS, usage_queues=QUEUES), outboxes, published, SystemClock())
    published.stuck[1] = 0
    assert relay.sweep() == SHARDS - SHARDS // QUEUES
    assert published.refused == [1]
    assert [shard for shard, count in outboxes.waiting.items() if count] == [*range(1, SHARDS, QUEUES)]
    assert not {shard for shard in outboxes.asked if shard % QUEUES == 1} - {1}, "its other shards are not even read"

    outboxes.waiting = dict.fromkeys(range(SHARDS), 1)
    outboxes.asked.clear()
    assert relay.sweep() == SHARDS - SHARDS // QUEUES
    assert outboxes.asked.index(1) == len(outboxes.asked) - 1
    published.stuck.clear()
    assert relay.sweep() == SHARDS // QUEUES


def test_l10_a_queue_that_takes_a_little_at_a_time_takes_of_each_of_its_shards() -> None:
    """Given a queue that is full after three events, then a sweep begins where the last one stopped: none starves."""
    outboxes, published = Outboxes(set()), Published()
    relay = Relay(Settings(shards=SHARDS, usage_queues=QUEUES), outboxes, published, SystemClock())
    outboxes.waiting = {shard: int(shard % QUEUES == 1) for shard in range(SHARDS)}
    for _ in range(6):
        published.stuck[1] = 3
        assert 2 <= relay.sweep() <= 3
        # The client of the queue's first shard is busy.
        outboxes.waiting[1] = 1
    assert [shard for shard, count in outboxes.waiting.items() if count] == [1]


def test_l9_a_broker_that_is_away_costs_two_failures_and_each_queue_has_its_turn() -> None:
    """Given a broker that takes nothing, then a sweep ends after a bound, the next one begins with the others."""
    outboxes, published = Outboxes(set()), Published()
    relay = Relay(Settings(shards=SHARDS, usage_queues=QUEUES), outboxes, published, SystemClock())
    published.stuck = dict.fromkeys(range(QUEUES), 0)
    for expected in ([0, 1], [2, 3], [0, 1]):
        published.refused.clear()
        assert relay.sweep() == 0
        assert published.refused == expected
        assert len(expected) == FAILURES_MAX
    published.stuck.clear()
    assert relay.sweep() == SHARDS


def test_l9_a_redis_that_is_dead_altogether_costs_a_few_waits() -> None:
    outboxes = Outboxes(set(range(SHARDS)))
    relay = Relay(Settings(shards=SHARDS), outboxes, Published(), SystemClock())
    with pytest.raises(Unreachable):
        relay.sweep()
    assert outboxes.asked == [*range(SILENT_MAX)]
    with pytest.raises(Unreachable):
        relay.sweep()
    assert outboxes.asked == [*range(2 * SILENT_MAX)]
