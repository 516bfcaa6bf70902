"""A client's shard, and the queue of a shard, are the same in every process, for ever."""

from __future__ import annotations

import collections

from hypothesis import given
from hypothesis import strategies as st

from billing.core.shards import queue_of, shard_of

#: Written down once: a change of this function would look for every client's bucket in the wrong place.
KNOWN = {"acme": 62, "globex": 58, "initech": 16, "käse-gmbh": 38, "": 0}


def test_the_shards_of_known_clients_never_change() -> None:
    """Given clients of the past, then they are where they were."""
    assert {client_id: shard_of(client_id, 64) for client_id in KNOWN} == KNOWN


@given(st.text(), st.integers(1, 4096), st.integers(1, 64))
def test_shards_and_queues_are_in_range_and_deterministic(client_id: str, shards: int, queues: int) -> None:
    """Given any client, then its shard and queue exist, and asking again answers the same."""
    shard = shard_of(client_id, shards)

    assert 0 <= shard < shards
    assert shard == shard_of(client_id, shards)
    assert 0 <= queue_of(shard, queues) < queues


def test_clients_spread_over_shards_and_shards_over_queues() -> None:
    """Given 6,400 clients, then no shard has three times its part, and each queue serves as many shards."""
    shards = collections.Counter(shard_of(f"client-{number}", 64) for number in range(6_400))
    queues = collections.Counter(queue_of(shard, 4) for shard in range(64))

    assert len(shards) == 64
    assert max(shards.values()) < 300
    assert set(queues.values()) == {16}
