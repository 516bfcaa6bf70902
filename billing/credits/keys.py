"""The names of every key in Redis. All keys of a shard carry one hash tag, so that each operation is one slot."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ShardKeys:
    """The keys of one shard. A bucket's are `bucket` and `grants` + client id, a run's is `run` + its id in hex."""

    bucket: str
    grants: str
    run: str
    leases: str
    outbox: str
    server: str
    swept: str
    asserts: str
    alerts: str
    expiries: str
    dry_runs: str
    trail: str


def shard_keys(shard: int) -> ShardKeys:
    """Return the keys of a shard."""
    tag = f"{{billing:{shard}}}:"
    return ShardKeys(
        bucket=f"{tag}bucket:",
        grants=f"{tag}grants:",
        run=f"{tag}run:",
        leases=f"{tag}leases",
        outbox=f"{tag}outbox",
        server=f"{tag}server",
        swept=f"{tag}swept",
        asserts=f"{tag}asserts",
        alerts=f"{tag}alerts",
        expiries=f"{tag}expiries",
        dry_runs=f"{tag}dry_runs",
        trail=f"{tag}trail",
    )
