"""A node of Redis that hangs pauses no other node's shards: their holds go on expiring (L5, L9, L10)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from billing.core.errors import Unreachable
from billing.core.settings import Settings
from billing.credits.values import Overdue
from billing.task.reaper import Reaper

SHARDS = 64
NODES = 3
LEASE_SECONDS = 60.0
#: The pause that a fulfillment worker makes between two sweeps, and what a node that hangs costs: two tries and a look
#: at the cluster by another one that hangs.
SWEEP_SECONDS = 5.0
WAIT_SECONDS = 4.0


class Shards:
    """Lease indexes on three nodes, and when each was swept: a third of a lease without pauses it, as in `overdue`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.hanging: set[int] = set()
        self.swept = dict.fromkeys(range(SHARDS), 0.0)
        self.paused: list[int] = []
        self.waits = 0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now

    def node_of(self, shard: int) -> str:
        """Return the node of a shard."""
        return str(shard % NODES)

    def overdue(self, shard: int, _: int) -> Overdue:
        """Sweep a shard in which nothing is due."""
        if shard % NODES in self.hanging:
            self.now += WAIT_SECONDS
            self.waits += 1
            message = "billing_redis_url: 'redis+cluster://n:1': the server does not answer (TimeoutError)"
            raise Unreachable(message)
        if self.now - self.swept[shard] > LEASE_SECONDS / 3:
            self.paused.append(shard)
        self.swept[shard] = self.now
        return Overdue(held=[], paused=False)


@pytest.fixture
def shards() -> Shards:
    """Return shards whose nodes all answer."""
    return Shards()


def reaper_of(shards: Shards) -> Reaper:
    """Return a reaper of these shards."""
    anything: Any = shards
    nothing: Any = SimpleNamespace()
    return Reaper(Settings(shards=SHARDS, lease_seconds=LEASE_SECONDS), anything, nothing, nothing, anything)


def sweep_for(reaper: Reaper, shards: Shards, seconds: float) -> None:
    """Sweep as a fulfillment worker does."""
    until = shards.now + seconds
    while shards.now < until:
        shards.now += SWEEP_SECONDS
        assert reaper.sweep() == 0


def test_l10_a_node_that_hangs_for_long_pauses_no_shard_of_another(shards: Shards) -> None:
    """Given a third of the shards on a node that hangs for ten minutes, then no other shard is swept late, ever."""
    reaper = reaper_of(shards)
    sweep_for(reaper, shards, 30)
    shards.hanging = {0}
    sweep_for(reaper, shards, 600)
    assert shards.paused == []
    assert 10 <= shards.waits <= 30, "it is asked again and again, and seldom"

    shards.hanging = set()
    sweep_for(reaper, shards, 60)
    assert {shard % NODES for shard in shards.paused} == {0}
    assert min(shards.swept.values()) > shards.now - LEASE_SECONDS / 3, "and once it answers, as often as the others"


def test_l10_two_nodes_that_hang_pause_no_shard_of_the_third(shards: Shards) -> None:
    reaper = reaper_of(shards)
    shards.hanging = {0, 1}
    sweep_for(reaper, shards, 600)
    assert shards.paused == []


def test_l9_where_all_hang_a_sweep_ends_after_a_few_waits(shards: Shards) -> None:
    reaper = reaper_of(shards)
    shards.hanging = set(range(NODES))
    for turn in range(1, 4):
        with pytest.raises(Unreachable):
            reaper.sweep()
        assert shards.waits == turn * NODES
