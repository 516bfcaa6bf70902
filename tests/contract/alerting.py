"""What tests of alerts do: spend, and read what was raised."""

from __future__ import annotations

from billing.core.shards import shard_of
from billing.credits.values import ReserveOutcome
from billing.credits.verbs import Verbs
from tests.contract.making import a_hold, a_run, a_settlement
from tests.contract.servers import SHARDS

SHARD = shard_of("acme", SHARDS)


def raised(buckets: Verbs) -> list[tuple[int, int]]:
    """Return each alert of a low balance in the stream: its percent, and what was available."""
    return [(entry.percent, entry.available) for entry in buckets.alerts(count=20_000) if not entry.owed]


def debts(buckets: Verbs) -> list[tuple[int, int]]:
    """Return each alert of a debt in the stream: what was owed, and the overdraft limit."""
    return [(entry.owed, entry.overdraft_limit) for entry in buckets.alerts(count=20_000) if entry.owed]


def reserve(buckets: Verbs, credits: int, task_id: str = "task-1", *, client_id: str = "acme") -> ReserveOutcome:
    """Reserve for a run and say what came of it."""
    return buckets.reserve(a_hold(a_run(client_id, task_id), credits, client_id=client_id)).outcome


def spend(buckets: Verbs, *amounts: int) -> None:
    """Spend amounts, each by a run of its own that reserves them first."""
    for number, amount in enumerate(amounts):
        run = a_run("acme", f"spend-{number}-{buckets.outbox_depth(SHARD)}")
        assert buckets.reserve(a_hold(run, amount)).outcome is ReserveOutcome.HELD
        buckets.settle(a_settlement(run, amount))
