"""What the tests of recovery share: a small business on real servers, and ways to lose what Redis holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from uuid import UUID

import redis

from billing import admin
from billing.core.errors import Recovering
from billing.core.ids import new_settlement_id, run_id
from billing.core.settings import Settings
from billing.core.shards import queue_of, shard_of
from billing.credits.values import AssertOutcome, Balance, Hold, ReserveOutcome, Settlement, SettleOutcome
from billing.events.usage_event import EventHead, UsageLine, encode_fragment, encode_head
from billing.fulfillment.consumer import Consumer
from billing.ledger import rebuilds
from billing.recovery.flush import MARKER_SECONDS
from billing.recovery.rebuild import Rebuilder
from billing.task.runtime import Runtime
from tests.integration.consuming import running, usage_log

QUEUES, SHARDS = 4, 64


def clients_by_queue() -> list[str]:
    """Return a client of each usage queue, in the queues' order."""
    found: dict[int, str] = {}
    for number in range(1_000):
        client_id = f"client-{number}"
        found.setdefault(queue_of(shard_of(client_id, SHARDS), QUEUES), client_id)
    return [found[queue] for queue in range(QUEUES)]


@contextmanager
def business_on(database: Settings, redis_url: str, broker_url: str) -> Iterator[Business]:
    """Open a business whose bounds no busy machine reaches."""
    settings = dataclasses.replace(
        database,
        redis_url=redis_url,
        broker_url=broker_url,
        shards=SHARDS,
        usage_queues=QUEUES,
        redis_timeout_seconds=60.0,
        publish_timeout_seconds=30.0,
        batch_age_seconds=0.1,
    )
    business = Business(settings)
    try:
        yield business
    finally:
        business.stop()


class PromptRebuilder(Rebuilder):
    """A rebuilder that notes its waits and cuts them short: what workers do meanwhile, a test has done before."""

    def __init__(self, runtime: Runtime, *, marker_seconds: float = MARKER_SECONDS) -> None:
        self.waits: list[float] = []
        super().__init__(runtime, marker_seconds=marker_seconds)

    def _wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        super()._wait(min(seconds, 0.05))


class Business:
    """Clients, their buckets and their log, without workers: a test does what a worker would."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.runtime = Runtime(lambda: settings)

    @property
    def rebuilder(self) -> PromptRebuilder:
        """A rebuilder."""
        return PromptRebuilder(self.runtime)

    @property
    def impatient(self) -> PromptRebuilder:
        """A rebuilder that gives a marker two seconds, where none comes."""
        return PromptRebuilder(self.runtime, marker_seconds=2.0)

    def client(self, client_id: str, *grants: int) -> str:
        """Make a client with grants."""
        admin.add_client(self.settings, client_id)
        for number, credits_ in enumerate(grants):
            _, applied = admin.grant(self.settings, client_id, credits_, key=f"grant-{number}")
            assert applied
        return client_id

    def hold(self, client_id: str, credits_: int, task_id: str = "task") -> Hold:
        """Reserve for a run."""
        hold = a_hold(client_id, credits_, task_id)
        assert self.runtime.buckets.reserve(hold).outcome is ReserveOutcome.HELD
        return hold

    def assert_running(self, *holds: Hold) -> None:
        """Assert the holds of running attempts, as their workers do."""
        for hold in holds:
            assert self.runtime.buckets.assert_hold(hold) in (AssertOutcome.ASSERTED, AssertOutcome.RENEWED)

    def settle(self, client_id: str, credits_: int, task_id: str, *, publish: bool = True) -> None:
        """Settle a run, and publish its event, or leave that in the outbox."""
        reply = self.runtime.buckets.settle(a_settlement(client_id, credits_, task_id))
        assert reply.outcome is SettleOutcome.SETTLED
        assert reply.event is not None
        if publish:
            shard = shard_of(client_id, SHARDS)
            queue = queue_of(shard, QUEUES)
            self.runtime.publisher.publish(queue, reply.event, shard=shard, entry_id=None)

    def request(self, client_id: str) -> None:
        """Ask for the rebuild of a client's shard, which is trusted."""
        with self.runtime.engine.begin() as connection:
            rebuilds.request_rebuild(connection, shard_of(client_id, SHARDS), "a test wants it")

    def close_shard(self, client_id: str) -> None:
        """Have the shard of a client lose its trust."""
        self.runtime.buckets.close(shard_of(client_id, SHARDS))

    def balance(self, client_id: str) -> Balance:
        """Return a balance, held to L2."""
        balance = self.runtime.buckets.balance(client_id)
        assert balance is not None
        assert balance.granted + balance.owed == balance.available + balance.held + balance.spent, balance
        return balance

    def is_open(self, client_id: str) -> bool:
        """Whether a client's bucket is trusted."""
        try:
            return self.runtime.buckets.balance(client_id) is not None
        except Recovering:
            return False

    def lose(self) -> None:
        """Empty Redis."""
        with redis.Redis.from_url(self.settings.redis_url) as client:
            client.flushall()

    def stop(self) -> None:
        """Close every connection."""
        self.runtime.close()
        admin.close(self.settings)

    @contextmanager
    def consuming(self, *queues: int) -> Iterator[None]:
        """Run consumers of some usage queues (none named: of all)."""
        with ExitStack() as stack:
            stack.enter_context(running(Consumer(self.settings, usage_log(self.settings), queues=queues or None)))
            yield


def a_hold(client_id: str, credits_: int, task_id: str = "task") -> Hold:
    """Return what a run asks for."""
    return Hold(
        run_id=the_run(client_id, task_id),
        client_id=client_id,
        sku="page",
        credits=credits_,
        token="token",
        price_version=1,
        attempt=1,
        head=_head(client_id, task_id),
        lines=b"",
        lease_seconds=60.0,
    )


def a_settlement(client_id: str, credits_: int, task_id: str) -> Settlement:
    """Return the settling of a run with one line."""
    return Settlement(
        run_id=the_run(client_id, task_id),
        client_id=client_id,
        sku="page",
        settlement_id=new_settlement_id(),
        head=_head(client_id, task_id),
        fragments=(encode_fragment(UsageLine(sku="page", quantity=1, credits=credits_)),),
        amounts=(credits_,),
    )


def the_run(client_id: str, task_id: str) -> UUID:
    """Return the id of a client's run."""
    return run_id(client_id, task_id, nesting=0, nonce="", at_milliseconds=1_790_000_000_000)


def _head(client_id: str, task_id: str) -> bytes:
    return encode_head(
        EventHead(
            run_id=the_run(client_id, task_id),
            client_id=client_id,
            correlation_id=task_id,
            root_id=task_id,
            task="task",
            attempt=1,
            submitted_at=None,
            price_version=1,
        )
    )
