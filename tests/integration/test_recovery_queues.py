"""A rebuild goes queue by queue: one that nobody consumes keeps no other shard closed, nor closes an open one (L10)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from billing.core.errors import Recovering
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.recovery import rebuild
from billing.recovery.rebuild import Rebuilder
from billing.recovery.writing import write_shard
from billing.task.runtime import Runtime
from tests.integration.consuming import rows
from tests.integration.recovering import Business, business_on, clients_by_queue
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def business(database: Settings, redis_url: str, broker_url: str) -> Iterator[Business]:
    """Open a business."""
    with business_on(database, redis_url, broker_url) as business:
        yield business


def test_given_a_queue_without_a_consumer_when_all_shards_are_lost_then_those_of_the_other_queues_come_back(
    business: Business,
) -> None:
    """The shard behind it stays closed until somebody consumes its queue."""
    clients = [business.client(client_id, 10) for client_id in clients_by_queue()]
    business.lose()
    rebuilder = business.impatient
    refusals: list[str] = []

    def others_are_back() -> bool:
        with pytest.raises(Recovering) as refused:
            rebuilder.step()
        refusals.append(str(refused.value))
        return [business.is_open(client_id) for client_id in clients] == [True, True, False, True]

    with business.consuming(0, 1, 3):
        wait_until(others_are_back, "the shards of the other queues are back")
    assert refusals[-1].startswith("1 shards still wait for their rebuild")
    with business.consuming(2):
        assert business.rebuilder.step() == 1
    assert all(business.balance(client_id).available == 10 for client_id in clients)


def test_given_a_shard_whose_rebuild_fails_in_an_unforeseen_way_when_all_are_lost_then_the_others_come_back(
    business: Business, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = (business.client(client_id, 10) for client_id in clients_by_queue()[:2])
    business.lose()

    def write(runtime: Runtime, shard: int) -> None:
        if shard == shard_of(bad, business.settings.shards):
            message = "nobody thought of this"
            raise RuntimeError(message)
        write_shard(runtime, shard)

    monkeypatch.setattr(rebuild, "write_shard", write)
    with business.consuming(), pytest.raises(Recovering, match="1 shards still wait"):
        business.rebuilder.step()
    assert "nobody thought of this" in caplog.text
    assert [business.is_open(client_id) for client_id in (bad, good)] == [False, True]


def test_given_no_consumer_when_a_trusted_shard_is_wanted_then_it_stays_open_until_there_is_one(
    business: Business,
) -> None:
    """What is only wanted is closed when its rebuild can come to an end, not before."""
    business.client("acme", 10)
    business.request("acme")
    with pytest.raises(Recovering):
        business.impatient.step()
    assert business.balance("acme").epoch == 1
    with business.consuming():
        assert business.rebuilder.step() == 1
        assert business.rebuilder.step() == 0
    assert business.balance("acme").epoch == 2


def test_given_no_broker_when_a_trusted_shard_is_wanted_then_it_stays_open(business: Business) -> None:
    business.client("acme", 10)
    business.request("acme")
    away = dataclasses.replace(business.settings, broker_url="amqp://127.0.0.1:1//")
    runtime = Runtime(lambda: away)
    with pytest.raises(Recovering):
        Rebuilder(runtime).step()
    runtime.close()
    assert business.balance("acme").epoch == 1


def test_given_events_in_the_outbox_when_a_shard_is_wanted_then_they_are_in_the_log_before_it_is_written(
    business: Business,
) -> None:
    """L3, L6: a rebuild counts what was settled and not yet published."""
    business.client("acme", 100)
    for number in range(7):
        business.settle("acme", 10, f"task-{number}", publish=False)
    business.request("acme")
    with business.consuming():
        assert business.rebuilder.step() == 1
    assert rows(business.settings) == 7
    balance = business.balance("acme")
    assert (balance.available, balance.spent, balance.epoch) == (30, 70, 2)


def test_given_a_rebuilder_that_is_told_to_stop_when_it_waits_then_it_ends_and_the_shard_stays_closed(
    business: Business,
) -> None:
    """L9: a worker that stops waits for no marker."""
    business.client("acme", 10)
    business.lose()
    rebuilder = Rebuilder(business.runtime)
    rebuilder.stop()
    with pytest.raises(Recovering, match="this worker stops"):
        rebuilder.step()
    assert not business.is_open("acme")
