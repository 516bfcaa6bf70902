"""The keys of a fleet's buckets, for what a test does to them by hand."""

from __future__ import annotations

from typing import Any

from billing.core.shards import shard_of
from billing.credits.buckets import Buckets
from billing.credits.keys import shard_keys
from tests.fleet.harness import Fleet


def redis_of(fleet: Fleet) -> Any:
    """Return the client that the fleet's buckets use."""
    buckets = fleet.buckets
    assert isinstance(buckets, Buckets)
    return buckets._scripts.client


def key_of(fleet: Fleet, client_id: str, part: str) -> str:
    """Return a client's key of a part of its shard: its bucket, or its grants."""
    return str(getattr(shard_keys(shard_of(client_id, fleet.settings.shards)), part) + client_id)
