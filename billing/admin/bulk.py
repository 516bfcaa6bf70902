"""Many clients at once, as a recorded workload brings them: the same steps as for one, in few transactions.

What dies half way is finished by the same call again: adding is idempotent by client id, granting by its key.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from billing.admin.access import runtime_for
from billing.admin.clients import add_on_shard
from billing.connections import postgres
from billing.core.identifiers import check_client_id
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.credits.values import GrantOutcome
from billing.ledger import locks
from billing.ledger.grants import GrantRow
from billing.ledger.many_grants import add_grants, mark_all_applied
from billing.recovery.grants import apply_grant, used_up
from billing.sinks.stripe import links
from billing.task.runtime import Runtime

#: Clients of one transaction (L9).
SLICE: Final = 500


def add_clients(settings: Settings, client_ids: Sequence[str]) -> int:
    """Add clients with empty buckets; return how many are new. Adding one again changes nothing."""
    by_shard: dict[int, list[str]] = defaultdict(list)
    for client_id in client_ids:
        by_shard[shard_of(check_client_id(client_id), settings.shards)].append(client_id)
    added = 0
    for shard, own in sorted(by_shard.items()):
        for part in _slices(own):
            added += sum(created for _, created in add_on_shard(settings, shard, part))
    return added


def grant_each(settings: Settings, client_ids: Sequence[str], credits_: int, *, key: str) -> int:
    """Grant the same credits to each of some clients under one key; return how many buckets have theirs already.

    Raises `UnknownClient`, and `Conflict` if the key was used for anything else. A bucket that cannot take its grant
    now gets it from the fulfillment worker within seconds.
    """
    runtime = runtime_for(settings)
    applied = 0
    for part in _slices(client_ids):
        with postgres.reaching(settings), runtime.engine.begin() as connection:
            locks.lock_shards_shared(connection, [shard_of(client_id, settings.shards) for client_id in part])
            rows = add_grants(connection, part, credits_, key, partial(used_up, runtime))
        applied += _apply(runtime, rows)
    return applied


def _apply(runtime: Runtime, rows: Sequence[GrantRow]) -> int:
    """Bring grants into their buckets, and note it in one transaction; what is not plain goes the ordinary way."""
    open_ = [row for row in rows if row.applied_at is None]
    outcomes = {
        row.grant_id: runtime.buckets.grant(row.client_id, row.grant_id, row.credits, row.for_bucket()) for row in open_
    }
    taken = {grant_id for grant_id, outcome in outcomes.items() if outcome in _HAS_IT}
    with postgres.reaching(runtime.settings), runtime.engine.begin() as connection:
        mark_all_applied(connection, taken)
    others = [row for row in open_ if row.grant_id not in taken]
    return len(rows) - len(others) + sum(apply_grant(runtime, row) for row in others)


_HAS_IT: Final = (GrantOutcome.GRANTED, GrantOutcome.ALREADY)


def _slices(client_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(client_ids), SLICE):
        yield client_ids[start : start + SLICE]


def link_clients(settings: Settings, customers: Mapping[str, str]) -> None:
    """Link clients to their Stripe customers, as `admin.link_client` does."""
    runtime = runtime_for(settings)
    for part in _slices(sorted(customers)):
        with postgres.reaching(settings), runtime.engine.begin() as connection:
            for client_id in part:
                links.link(connection, client_id, links.check_customer_id(customers[client_id]))
