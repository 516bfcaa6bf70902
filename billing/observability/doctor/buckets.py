"""Buckets: shards that are being rebuilt, what has not reached them, what waits to be confirmed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import text

from billing.connections import postgres
from billing.ledger import postings
from billing.observability.doctor.finding import Finding, fail, ok, warn
from billing.recovery.facts import shards_with_clients
from billing.task.runtime import Runtime

#: A fulfillment worker brings a grant into its bucket within seconds.
_BEHIND_SECONDS_MAX: Final = 60


def examine_buckets(runtime: Runtime) -> Iterator[Finding]:
    """Look at what the log and the ledger have brought into Redis."""
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        shards = sorted(shards_with_clients(connection))
        behind, oldest_seconds = connection.execute(text(_BEHIND)).one()
        refused = postings.refused(connection, _REFUSED_MAX)
    recovering = [shard for shard in shards if len(set(runtime.buckets.server_of(shard))) > 1]
    if recovering:
        listed = ", ".join(map(str, recovering[:10]))
        yield fail(
            "buckets",
            f"{len(recovering)} shards are recovering ({listed})",
            "a worker with --fulfillment rebuilds them",
        )
    else:
        yield ok("buckets", f"{len(shards)} shards with clients, all trusted")
    verdict = warn if oldest_seconds > _BEHIND_SECONDS_MAX else ok
    advice = "start a worker with --fulfillment; its log says what keeps one out"
    age = f", the oldest for {oldest_seconds:,} s" if behind else ""
    yield verdict("buckets", f"{behind} grants and changes are not in their buckets yet{age}", advice)
    if refused:
        first = refused[0]
        seen = f"{len(refused)} postings are refused, as of client {first.client_id}, grant {first.grant_id}"
        yield fail(
            "buckets", f"{seen}: {first.reason}", "the log has more than a bucket can count: billing reconcile --status"
        )
    waiting = sum(runtime.buckets.outbox_depth(shard) for shard in shards)
    verdict = ok if waiting < runtime.settings.outbox_entries_max else warn
    yield verdict("buckets", f"{waiting} usage events wait to be confirmed", "see whether the broker answers")


#: Refused postings that are counted.
_REFUSED_MAX: Final = 50
_BEHIND: Final = """
SELECT count(*), coalesce(extract(epoch FROM now() - min(created_at)), 0)::bigint
FROM (SELECT created_at FROM credit_grant WHERE applied_at IS NULL
      UNION ALL SELECT created_at FROM client_change WHERE applied_at IS NULL) AS behind
"""
