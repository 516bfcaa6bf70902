"""Which shard a client belongs to, and which usage queue serves a shard. The same answer in every process, for ever."""

from __future__ import annotations

import zlib


def shard_of(client_id: str, shards: int) -> int:
    """Return the shard of a client: CRC-32 of its UTF-8 text, modulo the fixed number of shards."""
    return zlib.crc32(client_id.encode()) % shards


def queue_of(shard: int, usage_queues: int) -> int:
    """Return the number of the usage queue that carries a shard's events, so that one client has one order."""
    return shard % usage_queues
