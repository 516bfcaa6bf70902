"""A rebuilt shard is what the log, the ledger and the running attempts add up to, whoever rebuilds it (L6)."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from billing.core.errors import Retryable
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.credits.buckets import Buckets
from billing.credits.values import SettleOutcome
from billing.recovery.rebuild import assertion_seconds
from billing.task.runtime import Runtime
from tests.integration import killed_rebuilder
from tests.integration.consuming import execute, until_rows
from tests.integration.recovering import SHARDS, Business, PromptRebuilder, a_settlement, business_on
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def business(database: Settings, redis_url: str, broker_url: str) -> Iterator[Business]:
    """Open a business."""
    with business_on(database, redis_url, broker_url) as business:
        yield business


def test_given_running_attempts_and_history_when_redis_is_emptied_then_every_credit_is_where_it_was(
    business: Business,
) -> None:
    """L6: balances, and which credits the running attempts hold, come back to the same values."""
    business.client("acme", 50, 100)
    business.client("bolt", 7)
    with business.consuming():
        holds = [business.hold("acme", 45, "a"), business.hold("acme", 30, "b")]
        business.hold("acme", 20, "c")
        business.settle("acme", 12, "c")
        until_rows(business.settings, 1)
        before = (business.balance("acme"), business.balance("bolt"))
        business.lose()
        business.assert_running(*holds)
        assert not business.is_open("acme")
        rebuilder = business.rebuilder
        assert rebuilder.step() == 2
        assert rebuilder.waits[0] == assertion_seconds(business.settings), (
            "workers are given time to assert their holds"
        )
    after = (business.balance("acme"), business.balance("bolt"))
    assert [(b.available, b.held, b.spent, b.owed) for b in after] == [
        (b.available, b.held, b.spent, b.owed) for b in before
    ]
    assert [b.epoch for b in after] == [2, 2]
    assert {hold.run_id for hold in business.runtime.buckets.held("acme")} == {hold.run_id for hold in holds}
    business.settle("acme", 45, "a")
    business.settle("acme", 30, "b")
    assert (business.balance("acme").spent, business.balance("acme").held) == (87, 0)


def test_given_debt_when_redis_is_emptied_then_it_is_owed_as_before_and_paid_by_the_next_grant(
    business: Business,
) -> None:
    """L2, L6: work that nothing covered stays owed, and what has repaid it stays repaid."""
    business.client("acme", 10)
    with business.consuming():
        business.settle("acme", 25, "late")
        until_rows(business.settings, 1)
        business.lose()
        assert business.rebuilder.step() == 1
        balance = business.balance("acme")
        assert (balance.owed, balance.debt, balance.spent, balance.available) == (15, 15, 25, 0)
        business.client("acme", 10, 20)
        assert business.balance("acme").available == 5
        business.lose()
        assert business.rebuilder.step() == 1
    balance = business.balance("acme")
    assert (balance.owed, balance.spent, balance.available, balance.epoch) == (0, 25, 5, 3)


def test_given_a_hold_whose_run_is_in_the_log_when_rebuilt_then_it_is_settled_and_never_charged_again(
    business: Business,
) -> None:
    """L3, L4: a Redis that came back older still has the hold; neither it nor its lease stays for the reaper."""
    business.client("acme", 100)
    with business.consuming():
        hold = business.hold("acme", 30, "a")
        business.settle("acme", 30, "a")
        until_rows(business.settings, 1)
        business.lose()
        business.assert_running(hold)
        assert business.rebuilder.step() == 1
    assert business.runtime.buckets.held("acme") == []
    reply = business.runtime.buckets.settle(a_settlement("acme", 30, "a"))
    assert reply.outcome is SettleOutcome.ALREADY
    balance = business.balance("acme")
    assert (balance.available, balance.held, balance.spent) == (70, 0, 30)


def test_given_a_postgresql_that_was_restored_to_an_older_state_when_rebuilt_then_the_epoch_passes_the_bucket_s(
    business: Business,
) -> None:
    """L6: a bucket of a newer epoch than the ledger's does not close its shard for ever."""
    business.client("acme", 100)
    with business.consuming():
        for epoch in (2, 3, 4):
            business.close_shard("acme")
            assert business.rebuilder.step() == 1
            assert business.balance("acme").epoch == epoch
        execute(business.settings, "UPDATE client SET epoch = 1")
        business.close_shard("acme")
        assert business.rebuilder.step() == 1
    assert business.balance("acme").epoch == 5


def test_given_a_server_that_is_lost_in_the_middle_of_a_look_then_all_of_its_shards_are_rebuilt_in_one_round(
    business: Business, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L6: the shard that was looked at before the loss waits for no second renewal."""
    clients = ("acme", "bolt", "core")
    shards = {shard_of(business.client(client_id, 10), SHARDS) for client_id in clients}
    assert len(shards) == 3
    look, looked = Buckets.server_of, []

    def losing(self: Buckets, shard: int) -> tuple[str | None, str]:
        looked.append(shard)
        if looked == sorted(shards)[:2]:
            business.lose()
        return look(self, shard)

    rebuilder = business.rebuilder
    monkeypatch.setattr(Buckets, "server_of", losing)
    with business.consuming():
        assert rebuilder.step() == 3
    assert rebuilder.waits.count(assertion_seconds(business.settings)) == 1
    assert [business.balance(client_id).available for client_id in clients] == [10, 10, 10]


def test_given_two_rebuilders_at_once_when_a_server_is_lost_then_one_leads_and_the_epoch_rises_once(
    business: Business,
) -> None:
    """L6: one leads, the other leaves it alone."""
    business.client("acme", 100)
    business.client("bolt", 100)
    start = threading.Barrier(2)
    rivals = [Runtime(lambda: business.settings) for _ in range(2)]

    def step(runtime: Runtime) -> int:
        start.wait(120)
        return PromptRebuilder(runtime).step()

    with business.consuming():
        business.lose()
        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(step, rivals)) == [0, 2]
    for runtime in rivals:
        runtime.close()
    assert [business.balance(client).epoch for client in ("acme", "bolt")] == [2, 2]


@pytest.mark.parametrize("point", killed_rebuilder.POINTS)
def test_given_a_rebuilder_that_is_killed_on_the_way_then_nothing_is_admitted_and_the_next_one_ends_it(
    business: Business, point: str
) -> None:
    """L6: whatever a dead rebuilder left, the shard stays closed until another has rebuilt it from the start."""
    business.client("acme", 100)
    business.client(NEIGHBOUR, 50)
    with business.consuming():
        hold = business.hold("acme", 40, "a")
        business.settle("acme", 25, "b")
        until_rows(business.settings, 1)
        business.lose()
        business.assert_running(hold)
        given = json.dumps(dataclasses.asdict(business.settings))
        died = subprocess.run([sys.executable, "-m", killed_rebuilder.__name__, given, point], check=False, cwd=ROOT)
        assert died.returncode == -9
        assert not business.is_open("acme")
        written = [epoch == 2 for epoch in business.runtime.buckets.epochs(["acme", NEIGHBOUR]).values()]
        assert sum(written) == {"closed": 0, "between two slices": 1, "committed": 2}[point]
        wait_until(lambda: rebuilt(business), "the dead leader's lock is free, and the shard rebuilt")
    balance = business.balance("acme")
    assert (balance.available, balance.held, balance.spent) == (35, 40, 25)
    assert business.balance(NEIGHBOUR).available == 50


ROOT = Path(__file__).parents[2]
#: A client of the same shard.
NEIGHBOUR = next(name for name in map(str, range(1_000)) if shard_of(name, SHARDS) == shard_of("acme", SHARDS))


def rebuilt(business: Business) -> bool:
    """Whether a step has rebuilt something."""
    try:
        return business.rebuilder.step() > 0
    except Retryable:
        return False


def test_given_a_bucket_of_a_client_that_postgresql_does_not_know_when_it_is_added_then_its_shard_is_rebuilt(
    business: Business,
) -> None:
    """L6: Redis was kept, PostgreSQL is new; what the old bucket could spend is in no ledger."""
    buckets, shard = business.runtime.buckets, shard_of("acme", SHARDS)
    assert buckets.verify(shard, expected=None)
    buckets.open_client("acme", 7)
    buckets.grant("acme", 99, 1_000_000)
    business.client("acme")
    with business.consuming():
        assert business.rebuilder.step() == 1
    balance = business.balance("acme")
    assert (balance.epoch, balance.available, balance.granted) == (8, 0, 0)


def test_given_what_is_left_of_a_bucket_of_another_time_when_its_client_is_added_then_its_shard_is_rebuilt(
    business: Business,
) -> None:
    """Redis was kept but for one key, PostgreSQL was not: what is left is in no ledger."""
    buckets, shard = business.runtime.buckets, shard_of("acme", SHARDS)
    assert buckets.verify(shard, expected=None)
    buckets.open_client("acme", 1)
    buckets.grant("acme", 99, 100)
    with redis.Redis.from_url(business.settings.redis_url) as client:
        client.delete(f"{{billing:{shard}}}:bucket:acme")
    business.client("acme")
    with business.consuming():
        assert business.rebuilder.step() == 1
    assert (business.balance("acme").grants, business.balance("acme").available) == ((), 0)


def test_given_an_open_client_whose_answer_was_lost_when_it_is_added_then_nothing_is_rebuilt(
    business: Business,
) -> None:
    """L10: a bucket that is as fresh as the client closes no shard."""
    buckets, shard = business.runtime.buckets, shard_of("acme", SHARDS)
    assert buckets.verify(shard, expected=None)
    buckets.open_client("acme", 1)
    business.client("acme")
    assert business.rebuilder.step() == 0
