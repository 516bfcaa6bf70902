"""PostgreSQL that stands still while clients have no bucket: nothing waits for it without a bound (L3, L9, L10)."""

from __future__ import annotations

import dataclasses
import gc
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest
import redis
import sqlalchemy

from billing.core.apart import call_apart
from billing.core.errors import Recovering, UnknownClient, Unreachable
from billing.core.shards import queue_of, shard_of
from billing.credits.buckets import Buckets
from billing.credits.values import Settlement, SettleReply
from billing.embedded.stack import Stack
from billing.events.publisher import PartlyPublished, Publisher
from billing.task.attachment import attachment_of
from billing.task.block import Block
from billing.task.outcome import Outcome
from billing.task.runtime import Runtime
from tests.amqp import waiting
from tests.fleet.harness import Fleet
from tests.hanging import hanging
from tests.integration.reserving import reserve
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

#: Threads that wait for PostgreSQL, each for a reason of its own.
ASKING = ("billing-question", "billing-prices", "billing-charges")


def asking(*names: str) -> list[str]:
    """Return the threads of this process that wait for PostgreSQL."""
    return [thread.name for thread in threading.enumerate() if thread.name in (names or ASKING)]


@pytest.fixture
def runtime(fleet: Fleet) -> Iterator[Runtime]:
    """Return this very process' own runtime, which waits for PostgreSQL for two seconds."""
    lifecycle, runtime = attachment_of(fleet.app).lifecycle, attachment_of(fleet.app).runtime
    vars(runtime)["settings"] = dataclasses.replace(fleet.settings, database_timeout_seconds=2)
    yield runtime
    lifecycle.close()
    wait_until(lambda: not asking(), "what waited for PostgreSQL has its answer")
    pool = runtime.engine.pool
    assert isinstance(pool, sqlalchemy.QueuePool)
    assert pool.checkedout() == 0, "a question has kept its connection"
    for run in list(lifecycle.renewal._runs.values()):
        lifecycle.renewal.remove(run)
    runtime.close()
    gc.collect()


def lose_bucket(fleet: Fleet, client_id: str) -> None:
    """Have Redis lose a client's bucket alone."""
    shard = shard_of(client_id, fleet.settings.shards)
    with redis.Redis.from_url(fleet.settings.redis_url) as client:
        assert client.delete(f"{{billing:{shard}}}:bucket:{client_id}") == 1


def outcomes(runs: Sequence[Block]) -> list[Outcome]:
    """Return what has become of blocks by now."""
    return [run.outcome for run in runs]


def test_l9_deliveries_without_a_bucket_are_put_off_and_one_question_goes_on(
    fleet: Fleet, runtime: Runtime, stack: Stack
) -> None:
    """Given connections that were good a moment ago, when PostgreSQL stops, then nobody hangs, and it is asked once."""
    fleet.client("acme", 100)
    assert isinstance(runtime.records.without_bucket("acme", missing=True), Recovering)
    with hanging(stack.postgres.child.child_pid):
        for _ in range(50):
            put_off = runtime.records.without_bucket("acme", missing=True)
            assert isinstance(put_off, Recovering)
            assert "the catalog does not answer" in str(put_off)
        assert asking("billing-question") == ["billing-question"]

    wait_until(lambda: not asking("billing-question"), "the question is answered")
    assert isinstance(runtime.records.without_bucket("nobody", missing=True), UnknownClient)


def test_l3_a_success_without_a_bucket_is_charged_though_postgresql_stands_still(
    fleet: Fleet, runtime: Runtime, stack: Stack
) -> None:
    """Given a run whose bucket is lost, when it succeeds, then its charge is at the broker before it returns."""
    fleet.client("acme", 100)
    with ExitStack() as stopped:
        with reserve(fleet, "acme") as run:
            lose_bucket(fleet, "acme")
            stopped.enter_context(hanging(stack.postgres.child.child_pid))
        assert run.outcome is Outcome.LATE
        queue = queue_of(shard_of("acme", runtime.settings.shards), runtime.settings.usage_queues)
        assert waiting(runtime.settings, queue) == 1


def test_l10_other_debts_are_paid_and_the_process_ends_though_postgresql_stands_still(
    fleet: Fleet, runtime: Runtime, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a kept settle without a bucket, then another client's kept settle is paid, and the end waits for a bound.

    The broker is away besides, so that the first settle is tried again and again.
    """
    fleet.client("acme", 100)
    fleet.client("bystander", 100)
    runs = [reserve(fleet, client_id) for client_id in ("acme", "bystander")]
    for run in runs:
        run.__enter__()
    lose_bucket(fleet, "acme")
    settle, is_away = Buckets.settle, threading.Event()
    is_away.set()

    def settled(self: Buckets, settlement: Settlement) -> SettleReply:
        if is_away.is_set() and settlement.client_id == "bystander":
            raise Unreachable("billing_redis_url: away")
        return settle(self, settlement)

    def away(*_: object, **__: object) -> None:
        raise PartlyPublished("the broker is away")

    monkeypatch.setattr(Buckets, "settle", settled)
    monkeypatch.setattr(Publisher, "publish", away)
    with hanging(stack.postgres.child.child_pid):
        for run in runs:
            run.__exit__(None, None, None)
        assert outcomes(runs) == [Outcome.PENDING, Outcome.PENDING]
        is_away.clear()
        wait_until(lambda: outcomes(runs) == [Outcome.PENDING, Outcome.CHARGED], "the bystander's settle is paid")

        monkeypatch.setattr(Publisher, "publish", lambda *_, **__: None)
        ended = call_apart(attachment_of(fleet.app).lifecycle.close, name="end")
        wait_until(ended.done, "the process may end")
        ended.result()
        assert outcomes(runs) == [Outcome.LATE, Outcome.CHARGED]
