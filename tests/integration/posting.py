"""What the tests of postings share: events that come late, twice or without a bucket, and what holds after them."""

from __future__ import annotations

import msgspec
import redis

from billing.core.shards import queue_of, shard_of
from billing.credits.values import Balance, SettleOutcome
from billing.events.direct import encode_direct
from billing.events.usage_event import UsageLine, decode_head
from billing.ledger import postings, rebuilds
from billing.reconciliation.reconcile import reconcile
from tests.integration.granting import balance_of
from tests.integration.recovering import QUEUES, SHARDS, Business, a_settlement, the_run

SHARD = shard_of("acme", SHARDS)


def publish(business: Business, event: bytes) -> None:
    """Put an event into its usage queue."""
    queue = queue_of(SHARD, QUEUES)
    business.runtime.publisher.publish(queue, event, shard=SHARD, entry_id=None)


def settled(business: Business, credits_: int, task_id: str, *, settlement_id: str = "") -> bytes:
    """Settle a run and return its event, which nobody has published."""
    settlement = a_settlement("acme", credits_, task_id)
    told = msgspec.structs.replace(settlement, settlement_id=settlement_id or settlement.settlement_id)
    reply = business.runtime.buckets.settle(told)
    assert reply.outcome is SettleOutcome.SETTLED
    assert reply.event is not None
    return reply.event


def direct(
    credits_: int, task_id: str, *, settlement_id: str = "direct", occurred_at: int = 1_790_000_000_005
) -> bytes:
    """Return the direct event of a run."""
    head = decode_head(a_settlement("acme", credits_, task_id).head)
    lines = [UsageLine(sku="page", quantity=1, credits=credits_)]
    return encode_direct(head, lines, settlement_id=settlement_id, occurred_at=occurred_at)


def forget_run(business: Business, task_id: str) -> None:
    """Let the retention of a settled run be over."""
    with redis.Redis.from_url(business.settings.redis_url) as client:
        assert client.delete(f"{{billing:{SHARD}}}:run:{the_run('acme', task_id).hex}")


def assert_at_work(business: Business, epoch: int = 1) -> Balance:
    """Check that no shard was closed, no rebuild is asked for, and every law holds; return the balance."""
    balance = balance_of(business)
    assert balance.epoch == epoch
    with business.runtime.engine.connect() as connection:
        assert rebuilds.requested(connection) == {}
        assert postings.waiting(connection, 10) == []
    report = reconcile(business.runtime, stripe=False, record=False)
    assert report.ok, report.findings()
    return balance


def sums(balance: Balance) -> tuple[int, int, int, int]:
    """Return what is available, held, spent and owed."""
    return balance.available, balance.held, balance.spent, balance.owed
