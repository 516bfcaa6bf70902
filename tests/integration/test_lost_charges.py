"""A success whose settle or event Redis loses is charged once all the same: its process knows of it (L3, L6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
import pytest
import redis

import billing
from billing.core.errors import Recovering
from billing.core.shards import queue_of, shard_of
from billing.credits.buckets import Buckets
from billing.credits.values import Settlement, SettleOutcome, SettleReply
from billing.events.links import Outgoing
from billing.events.publisher import PartlyPublished, Publisher
from billing.ledger import postings
from billing.reconciliation.reconcile import reconcile
from billing.task.attachment import attachment_of
from billing.task.outcome import Outcome
from tests.amqp import waiting
from tests.fleet.harness import Fleet
from tests.fleet.tasks import SKU, noted
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

Patch = pytest.MonkeyPatch


@pytest.fixture
def shop(running_fleet: Fleet) -> Iterator[Fleet]:
    """Use the fleet from this very process, and leave no connection behind."""
    yield running_fleet
    attachment = attachment_of(running_fleet.app)
    attachment.lifecycle.close()
    attachment.runtime.close()


def empty(fleet: Fleet) -> None:
    """Have Redis lose everything."""
    with redis.Redis.from_url(fleet.settings.redis_url) as client:
        client.flushall()


def emptied(fleet: Fleet, _client_id: str, patch: Patch) -> None:
    """Have Redis lose everything right before the settle."""
    settle = Buckets.settle

    def lost(self: Buckets, settlement: Settlement) -> SettleReply:
        empty(fleet)
        return settle(self, settlement)

    patch.setattr(Buckets, "settle", lost)


def without_bucket(fleet: Fleet, client_id: str, _patch: Patch) -> None:
    """Have Redis lose the client's bucket alone."""
    shard = shard_of(client_id, fleet.settings.shards)
    with redis.Redis.from_url(fleet.settings.redis_url) as client:
        assert client.delete(f"{{billing:{shard}}}:bucket:{client_id}") == 1


def refused_though_open(_fleet: Fleet, _client_id: str, patch: Patch) -> None:
    """Have the bucket be back before anybody has seen that it was away: it learns of the charge by a posting."""
    patch.setattr(Buckets, "settle", lambda *_: SettleReply(outcome=SettleOutcome.RECOVERING))


def taken_and_refused(_fleet: Fleet, _client_id: str, patch: Patch) -> None:
    """Have Redis take the settle, the answer be lost, and the next one be that the shard recovers."""
    settle = Buckets.settle

    def taken(self: Buckets, settlement: Settlement) -> SettleReply:
        settle(self, settlement)
        return SettleReply(outcome=SettleOutcome.RECOVERING)

    patch.setattr(Buckets, "settle", taken)


LOSSES = (emptied, without_bucket, refused_though_open, taken_and_refused)


@pytest.mark.parametrize("lose", LOSSES, ids=lambda lose: lose.__name__)
def test_l3_a_settle_that_no_bucket_takes_is_charged_once_and_at_once(
    shop: Fleet, monkeypatch: Patch, lose: Callable[[Fleet, str, Patch], None]
) -> None:
    """Given a run whose bucket is lost when it succeeds, then one row says so, and its hold comes back to the unit."""
    client_id = shop.client(f"client-{lose.__name__}", 100)

    with billing.reserve(client_id, SKU, app=shop.app) as run:
        lose(shop, client_id, monkeypatch)

    # A machine that stands still for seconds between two commands may find the emptied shard open again.
    assert run.outcome is Outcome.LATE or lose is emptied
    assert run.credits_charged == 10
    wait_until(lambda: returned(shop, client_id) == (lose is taken_and_refused), "what was taken twice is given back")
    wait_until(lambda: is_at_rest(shop, client_id), "the bucket is what the log says")
    (row,) = shop.rows(client_id)
    assert (row.credits, row.quantity, row.late) == (10, 1, run.outcome is Outcome.LATE)
    assert reconcile(shop.runtime, stripe=False, record=False).ok


def test_l3_an_event_that_redis_lost_before_rabbitmq_had_it_is_published_by_its_process(
    shop: Fleet, monkeypatch: Patch
) -> None:
    """Given a settled run whose event no broker took, when Redis is emptied, then the row is there, once."""
    client_id = shop.client("settled", 100)
    other = shop.client("bystander", 100)

    def away(_self: Publisher, _queue: int, _messages: Sequence[Outgoing]) -> None:
        raise PartlyPublished("the broker is away")

    with monkeypatch.context() as patch:
        patch.setattr(Publisher, "publish_batch", away)
        shard = shard_of(client_id, shop.settings.shards)
        # The relay is no quicker than the loss: the outbox is emptied in the moment in which it is settled.
        settle = Buckets.settle

        def settled_and_lost(self: Buckets, settlement: Settlement) -> SettleReply:
            reply = settle(self, settlement)
            empty(shop)
            return reply

        patch.setattr(Buckets, "settle", settled_and_lost)
        with billing.reserve(client_id, SKU, app=shop.app) as run:
            pass
        assert run.outcome is Outcome.CHARGED
        assert shop.buckets.outbox_depth(shard) == 0

    wait_until(lambda: is_at_rest(shop, client_id), "the bucket is what the log says")
    (row,) = shop.rows(client_id)
    assert (row.credits, row.quantity, row.late) == (10, 1, False)
    wait_until(lambda: books(shop, other) == (100, 0, 0, 0), "the other client is back, too")
    assert reconcile(shop.runtime, stripe=False, record=False).ok


def test_l3_a_process_that_is_killed_while_redis_recovers_has_left_its_charge_with_the_broker(fleet: Fleet) -> None:
    """Given a task that succeeds on an emptied Redis, when all of its worker is killed, then it is charged, once."""
    settings = fleet.settings
    fleet.client("acme", 100)
    queue = queue_of(shard_of("acme", settings.shards), settings.usage_queues)
    worker = fleet.worker(children=1)
    fleet.send("gated", "acme", "gate")
    wait_until(lambda: noted(fleet.directory, "gate.started"), "the task runs")

    empty(fleet)
    (fleet.directory / "gate").touch()
    wait_until(lambda: waiting(settings, queue) == 1, "the charge is at the broker")
    worker.kill()

    fleet.consumer()
    wait_until(lambda: is_at_rest(fleet, "acme"), "the bucket is what the log says")
    assert [(row.credits, row.late) for row in fleet.rows()] == [(10, True)]


def books(fleet: Fleet, client_id: str) -> Any:
    """Return what a client has available, held, spent and owes; nothing while its bucket is away."""
    try:
        balance = fleet.balance(client_id)
    except Recovering:
        return None
    return balance.available, balance.held, balance.spent, balance.owed


def is_at_rest(fleet: Fleet, client_id: str) -> bool:
    """Whether one charge of 10 out of 100 credits is in log and bucket, and nothing is on its way."""
    with fleet.runtime.engine.connect() as connection:
        told = not postings.waiting(connection, 10)
    sent = not any(fleet.buckets.outbox_depth(shard) for shard in range(fleet.settings.shards))
    return told and sent and len(fleet.rows(client_id)) == 1 and books(fleet, client_id) == (90, 0, 10, 0)


def returned(fleet: Fleet, client_id: str) -> int:
    """Return how many settlements of a client were given back."""
    with psycopg.connect(fleet.settings.database_url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM settlement_returned WHERE client_id = %s", [client_id]
        ).fetchone()
    assert row is not None
    return int(row[0])
