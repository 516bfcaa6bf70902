"""The buckets of a cluster: each test has it empty and whole, with a client on each shard."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from billing.credits.buckets import Buckets
from tests.contract.clusters import ClusterServer, clients_on_each_shard


@pytest.fixture
def buckets(cluster: ClusterServer) -> Iterator[Buckets]:
    """Return buckets with a client of 100 credits on each shard, on an empty cluster, with time to answer."""
    with clients_on_each_shard(cluster) as made:
        yield made
