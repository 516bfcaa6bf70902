"""RabbitMQ stopped, blocked, without its queue: work ends and is charged, events wait, all arrive, each once (L3, L9).

The publisher's own bounds are `test_publisher.py`'s, the relay's `test_relay.py`'s: here billed work goes through all
of it, as in a worker.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import celery
import pytest

import billing
from billing import admin
from billing.core.settings import Settings
from billing.core.shards import queue_of, shard_of
from billing.embedded.rabbitmq import RabbitMQ
from billing.events import topology
from billing.integration.services import make_relay
from billing.task.attachment import attachment_of
from billing.task.lifecycle import Lifecycle
from billing.task.outcome import Outcome
from tests.amqp import channel_of
from tests.hanging import hanging, kill_node
from tests.integration.consuming import query, rows
from tests.integration.recovering import QUEUES, SHARDS, Business, business_on
from tests.waiting import wait_until

PRICE: Final = 7
QUEUE: Final = queue_of(shard_of("acme", SHARDS), QUEUES)
#: More bytes than any disk has free, and the limit that the embedded node is started with.
_DISK_MAX: Final = 10**18
_DISK: Final = 64_000_000


@contextmanager
def stopped(rabbitmq: RabbitMQ) -> Iterator[None]:
    """Have the node be gone."""
    kill_node(rabbitmq)
    yield
    rabbitmq.restart(timeout_seconds=300)


@contextmanager
def memory_alarm(rabbitmq: RabbitMQ) -> Iterator[None]:
    """Have the node be short of memory: it reads from no publisher."""
    rabbitmq._call("ok = vm_memory_monitor:set_vm_memory_high_watermark(0.00001)")
    try:
        yield
    finally:
        rabbitmq._call("ok = vm_memory_monitor:set_vm_memory_high_watermark(0.7)")


@contextmanager
def disk_alarm(rabbitmq: RabbitMQ) -> Iterator[None]:
    """Have the node be short of disk: it reads from no publisher."""
    rabbitmq._call(f"ok = rabbit_disk_monitor:set_disk_free_limit({_DISK_MAX})")
    try:
        yield
    finally:
        rabbitmq._call(f"ok = rabbit_disk_monitor:set_disk_free_limit({_DISK})")


AWAY: Final[dict[str, Callable[[RabbitMQ], AbstractContextManager[None]]]] = {
    "stopped": stopped,
    "memory alarm": memory_alarm,
    "disk alarm": disk_alarm,
    "standing still": lambda rabbitmq: hanging(rabbitmq.child.child_pid),
}


class Shop:
    """Bills blocks, as a worker or a web view does, and keeps count."""

    def __init__(self, settings: Settings) -> None:
        self._app = celery.Celery("shop", set_as_current=False)
        given = dataclasses.asdict(settings).items()
        self._app.conf.update({f"billing_{name}": value for name, value in given if value})
        billing.setup(self._app)
        self.blocks = 0

    @property
    def lifecycle(self) -> Lifecycle:
        """What publishes its events."""
        return attachment_of(self._app).lifecycle

    def bill(self) -> None:
        """Bill a block, which ends well."""
        self.blocks += 1
        with billing.reserve("acme", "page", app=self._app) as run:
            pass
        assert run.outcome is Outcome.CHARGED

    def bill_until_one_waits(self) -> bool:
        """Bill a block; return whether an event waits for the broker now."""
        self.bill()
        return len(self.lifecycle.events) > 0

    def close(self) -> None:
        """Close every connection."""
        self.lifecycle.close()
        attachment_of(self._app).runtime.close()


@pytest.fixture
def business(database: Settings, redis_url: str, broker_url: str) -> Iterator[Business]:
    """Open a business with the client acme, and production's bound on a publish."""
    with business_on(database, redis_url, broker_url) as made:
        made.settings = dataclasses.replace(made.settings, publish_timeout_seconds=2.0, relay_after_seconds=0.0)
        admin.set_price(made.settings, "page", PRICE, "unit")
        made.client("acme", 10_000)
        yield made


@pytest.fixture
def shop(business: Business) -> Iterator[Shop]:
    """Open a shop, whose first event has arrived."""
    made = Shop(business.settings)
    made.bill()
    assert len(made.lifecycle.events) == 0
    yield made
    made.close()


def check_all_arrive(business: Business, shop: Shop) -> None:
    """Have everything run as ever, until each block is a row, and nothing waits any more."""
    relay, shard = make_relay(business.runtime), shard_of("acme", SHARDS)

    def arrived() -> bool:
        relay.sweep()
        waits = len(shop.lifecycle.events) + business.runtime.buckets.outbox_depth(shard)
        return not waits and rows(business.settings) == shop.blocks

    with business.consuming():
        wait_until(arrived, "all events are rows, and none waits")
    spent = PRICE * shop.blocks
    assert query(business.settings, "SELECT sum(credits)::bigint FROM usage_history") == [(spent,)]
    balance = business.balance("acme")
    assert (balance.spent, balance.held, balance.owed) == (spent, 0, 0)


@pytest.mark.parametrize("fault", AWAY)
def test_given_a_broker_that_takes_no_events_then_work_ends_events_wait_and_all_arrive(
    fault: str, rabbitmq: RabbitMQ, business: Business, shop: Shop
) -> None:
    """L9: nothing hangs; the events are in the outbox besides."""
    with AWAY[fault](rabbitmq):
        # An alarm comes to a connection a moment after it was raised.
        wait_until(shop.bill_until_one_waits, "an event waits for the broker")
        waiting = len(shop.lifecycle.events)
        for _ in range(5):
            shop.bill()
        assert len(shop.lifecycle.events) == waiting + 5
        assert business.runtime.buckets.outbox_depth(shard_of("acme", SHARDS)) >= waiting + 5
    check_all_arrive(business, shop)


@pytest.mark.parametrize("missing", ["queue", "binding", "exchange"])
def test_given_no_way_to_the_queue_then_events_are_returned_and_all_arrive(
    missing: str, business: Business, shop: Shop
) -> None:
    """A returned message counts as unconfirmed: what is missing is declared again, and nothing falls through."""
    with business.consuming():
        wait_until(lambda: rows(business.settings) == 1, "the queue is empty")
    settings = business.settings
    name = topology.queue_name(settings, QUEUE)
    with channel_of(settings) as channel:
        if missing == "queue":
            channel.queue_delete(name)
        elif missing == "binding":
            channel.queue_unbind(name, settings.usage_exchange, name)
        else:
            channel.exchange_delete(settings.usage_exchange)
        for _ in range(5):
            shop.bill()
    check_all_arrive(business, shop)
