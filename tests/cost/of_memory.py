"""How many bytes of the server's memory a bucket, a hold, a settled run and an event in the outbox take.

By the server's own count of each key (MEMORY USAGE, whole), over so many that a page more or less does not show.
"""

from __future__ import annotations

from typing import Any, Final

import redis

from tests.contract.making import a_hold, a_run, a_settlement
from tests.contract.servers import SHARDS, buckets_at
from tests.cost.place import Place
from tests.cost.wires import Counts

MANY: Final = 100


def measure(place: Place) -> dict[str, Counts]:
    """Fill an empty server step by step; what each step adds is a hundred of one thing."""
    found: dict[str, Counts] = {}
    for grants in (1, 8, 64):
        server: Any = redis.Redis.from_url(place.redis_url)
        server.flushall()
        buckets = buckets_at(place.redis_url)
        for shard in range(SHARDS):
            buckets.verify(shard, expected=None)
        empty = used(server)
        clients = [f"client-{number:03}" for number in range(MANY)]
        for client_id in clients:
            buckets.open_client(client_id)
            for number in range(grants):
                buckets.grant(client_id, 1_000_000 + number, 1_000_000)
        idle = used(server)
        found[f"memory.bucket.{grants}"] = {"bytes": (idle - empty) // MANY}
        if grants == 1:
            runs = [a_run(client_id, f"task-{client_id}") for client_id in clients]
            for client_id, run in zip(clients, runs, strict=True):
                buckets.reserve(a_hold(run, 5, client_id=client_id))
            held = used(server)
            found["memory.hold"] = {"bytes": (held - idle) // MANY}
            for client_id, run in zip(clients, runs, strict=True):
                buckets.settle(a_settlement(run, 5, client_id=client_id))
            outboxes = list(server.scan_iter("*outbox*"))
            outbox = sum(server.memory_usage(key, samples=0) for key in outboxes)
            settled = used(server) - outbox
            found["memory.outbox_entry"] = {"bytes": outbox // MANY}
            found["memory.settled_run"] = {"bytes": (settled - idle) // MANY}
        server.close()
        buckets._scripts.client.close()
    return found


def used(server: Any) -> int:
    """Return the bytes of all keys."""
    return sum(server.memory_usage(key, samples=0) for key in server.scan_iter(count=1_000))
