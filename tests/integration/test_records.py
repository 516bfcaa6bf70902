"""What a refusal asks of PostgreSQL: seldom while a shard comes back, and always where only the catalog knows (L6)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy

from billing import admin
from billing.core.errors import ClientInactive, InvalidValue, Recovering, UnknownClient, Unreachable
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.task.coming_back import AGE_MAX_SECONDS
from billing.task.runtime import Runtime
from billing.testing.clock import TestClock
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

SHARDS = 64
#: Two names of acme's shard, and one of another.
NEIGHBOUR, STRANGER = [n for n in map(str, range(1_000)) if shard_of(n, SHARDS) == shard_of("acme", SHARDS)][:2]
ELSEWHERE = next(n for n in map(str, range(1_000)) if shard_of(n, SHARDS) != shard_of("acme", SHARDS))


@pytest.fixture
def shop(database: Settings, redis_url: str) -> Iterator[Settings]:
    """Return the settings of a deployment with two clients on one shard."""
    settings = dataclasses.replace(database, redis_url=redis_url, shards=SHARDS)
    admin.add_client(settings, "acme")
    admin.add_client(settings, NEIGHBOUR)
    yield settings
    admin.close(settings)


class Asking:
    """A process that is refused, and how often it has asked PostgreSQL."""

    def __init__(self, settings: Settings) -> None:
        self.clock = TestClock()
        self.runtime = Runtime(lambda: settings, self.clock)
        self.transactions = 0
        sqlalchemy.event.listen(self.runtime.engine, "begin", self._count)

    def _count(self, _: sqlalchemy.Connection) -> None:
        self.transactions += 1

    def refused(self, client_id: str, *, missing: bool = False) -> tuple[type[Exception], int]:
        """Return what is said of a client, and how many transactions that took."""
        before = self.transactions
        error = self.runtime.records.without_bucket(client_id, missing=missing)
        return type(error), self.transactions - before


@pytest.fixture
def asking(shop: Settings) -> Iterator[Asking]:
    """Open a process' connections."""
    asking = Asking(shop)
    yield asking
    asking.runtime.close()


def test_given_a_recovering_shard_when_its_deliveries_are_put_off_then_postgresql_is_asked_once_a_minute(
    asking: Asking,
) -> None:
    assert asking.refused("acme") == (Recovering, 1)
    assert [asking.refused(client_id) for client_id in ("acme", NEIGHBOUR, STRANGER)] == [(Recovering, 0)] * 3
    assert asking.refused("acme", missing=True) == (Recovering, 1), "a bucket that is missing asks for a rebuild"
    asking.clock.advance(timedelta(seconds=AGE_MAX_SECONDS))
    assert asking.refused(STRANGER) == (UnknownClient, 1)
    assert asking.refused("acme") == (Recovering, 1)


def test_given_a_shard_without_clients_when_an_unknown_one_is_refused_then_it_is_told_so_each_time(
    asking: Asking,
) -> None:
    """Nobody rebuilds that shard: its deliveries would be put off for ever."""
    assert asking.refused("acme") == (Recovering, 1)
    assert [asking.refused(ELSEWHERE) for _ in range(2)] == [(UnknownClient, 1)] * 2


def test_given_another_number_of_shards_when_a_client_is_refused_then_it_is_told_each_time(shop: Settings) -> None:
    other = Asking(dataclasses.replace(shop, shards=next(n for n in range(2, 64) if _moves(n))))
    assert [other.refused("acme") for _ in range(2)] == [(InvalidValue, 1)] * 2
    other.runtime.close()


def _moves(shards: int) -> bool:
    return shard_of("acme", shards) != shard_of("acme", SHARDS)


@pytest.mark.parametrize("state", ["suspended", "closed"])
def test_who_is_not_active_may_start_nothing(shop: Settings, asking: Asking, state: Any) -> None:
    """Given a client that is, was or never was, then the catalog says who may start without a bucket's answer."""
    asking.runtime.records.check_active("acme")
    with pytest.raises(UnknownClient):
        asking.runtime.records.check_active("nobody")
    admin.set_client_state(shop, "acme", state)
    with pytest.raises(ClientInactive, match=state):
        asking.runtime.records.check_active("acme")


def test_l9_a_catalog_that_stands_still_is_waited_for_within_the_bound(shop: Settings) -> None:
    """Given a table that somebody keeps locked, then whoever asks is told so at the bound."""
    runtime = Runtime(lambda: dataclasses.replace(shop, database_timeout_seconds=0.5))
    records = runtime.records
    with runtime.engine.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE client IN ACCESS EXCLUSIVE MODE")
        for check in (records.check_active, records.check_client):
            with pytest.raises(Unreachable):
                check("acme")
    pool: Any = runtime.engine.pool
    wait_until(lambda: pool.checkedout() == 0, "the questions have ended")
    runtime.close()
