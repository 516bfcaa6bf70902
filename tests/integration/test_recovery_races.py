"""Rebuilders that race or pause: a bucket opens at PostgreSQL's epoch alone, and no open one is left behind (L6)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection

from billing.core.errors import Recovering
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.credits.buckets import Buckets
from billing.credits.values import RebuildOutcome
from billing.ledger import locks
from billing.recovery import facts
from billing.recovery.writing import write_shard
from billing.task.runtime import Runtime
from tests.integration.recovering import SHARDS, Business, business_on

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SHARD = shard_of("acme", SHARDS)


@pytest.fixture
def business(database: Settings, redis_url: str, broker_url: str) -> Iterator[Business]:
    """Open a business whose one shard is lost."""
    with business_on(database, redis_url, broker_url) as business:
        business.client("acme", 100)
        business.lose()
        yield business


@pytest.fixture
def rival(business: Business) -> Iterator[Runtime]:
    """Open another process' connections."""
    runtime = Runtime(lambda: business.settings)
    yield runtime
    runtime.close()


def epoch_of(business: Business) -> int:
    """Return PostgreSQL's epoch."""
    with business.runtime.engine.connect() as connection:
        return facts.epochs_of_shard(connection, SHARD)["acme"]


def test_given_a_rebuilder_that_pauses_before_it_writes_when_another_is_done_then_it_writes_and_opens_nothing(
    business: Business, rival: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    rebuild = Buckets.rebuild_all

    def paused(self: Buckets, *args: Any, **options: Any) -> RebuildOutcome:
        monkeypatch.setattr(Buckets, "rebuild_all", rebuild)
        write_shard(rival, SHARD)
        return rebuild(self, *args, **options)

    monkeypatch.setattr(Buckets, "rebuild_all", paused)
    with pytest.raises(Recovering, match="stale meanwhile"):
        write_shard(business.runtime, SHARD)
    assert (business.balance("acme").epoch, epoch_of(business)) == (3, 3)


def test_given_a_rebuilder_that_pauses_before_it_opens_when_another_has_begun_an_epoch_then_it_opens_nothing(
    business: Business, rival: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one may be dead: the shard stays closed until somebody has rebuilt it at a later epoch."""
    lock, calls = locks.lock_shard_exclusive, []

    def paused(connection: Connection, shard: int) -> None:
        calls.append(shard)
        if len(calls) == 2:
            with rival.engine.begin() as other:
                lock(other, shard)
                facts.begin_epoch(other, shard, rival.buckets.epochs)
        lock(connection, shard)

    monkeypatch.setattr(locks, "lock_shard_exclusive", paused)
    with pytest.raises(Recovering, match="stale meanwhile"):
        write_shard(business.runtime, SHARD)
    assert not business.is_open("acme")
    write_shard(rival, SHARD)
    assert (business.balance("acme").epoch, business.balance("acme").available) == (4, 100)
    assert epoch_of(business) == 4


def test_given_a_shard_that_is_open_again_when_a_late_rebuilder_comes_then_its_epoch_stays(business: Business) -> None:
    """A new epoch would leave the open buckets behind PostgreSQL, and postings without a bucket."""
    write_shard(business.runtime, SHARD)
    with pytest.raises(Recovering, match="open meanwhile"):
        write_shard(business.runtime, SHARD)
    assert (business.balance("acme").epoch, epoch_of(business)) == (2, 2)
