"""Blocks in processes without Celery, which are killed, outlive leases, and come in crowds (L1, L3, L5).

A real fulfillment worker sweeps, relays and consumes beside them; a lease of the fleet is three seconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import redis

from billing import admin
from billing.core.errors import Recovering
from tests.fleet.harness import ROOT, Fleet
from tests.fleet.tasks import noted
from tests.proxy import Proxy, address_of
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

Start = Callable[..., "subprocess.Popen[bytes]"]
LEASES = 3


#: A crowd that starts at once on a busy machine may need longer to reach its servers than production allows.
PATIENT = {"BILLING_DATABASE_TIMEOUT_SECONDS": "60", "BILLING_REDIS_TIMEOUT_SECONDS": "60"}


@pytest.fixture
def start(fleet: Fleet) -> Iterator[Start]:
    """Return what starts a process of `tests.fleet.blocks`; none outlives the test."""
    with ExitStack() as running:

        def spawn(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
            process = running.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.fleet.blocks", *arguments],
                    env={**os.environ, **fleet._environment, **PATIENT, "PYTHONPATH": str(ROOT), **environment},
                    cwd=fleet.directory,
                )
            )
            running.callback(process.kill)
            return process

        yield spawn


def started(fleet: Fleet, gate: str, times: int = 1) -> None:
    """Wait until a block is being executed."""
    wait_until(lambda: len(noted(fleet.directory, f"{gate}.started")) == times, f"{gate} runs")


def test_killed_inside_the_block_costs_nothing(fleet: Fleet, start: Start) -> None:
    """Given a process that is killed in a block, then its hold expires, unsettled, though it had recorded (L3, L5)."""
    fleet.client("acme", 100)
    fleet.consumer(wait=False)
    process = start("once", "acme", "gate")
    started(fleet, "gate")
    assert fleet.balance("acme").held == 20

    process.send_signal(signal.SIGKILL)
    assert process.wait(120) == -signal.SIGKILL

    wait_until(lambda: not fleet.holds("acme"), "the hold expires")
    balance = fleet.balance("acme")
    assert (balance.available, balance.held, balance.spent) == (100, 0, 0)
    assert fleet.rows() == []


def test_a_dead_block_expires_whatever_is_stored_of_a_task_of_that_id(fleet: Fleet, start: Start) -> None:
    """Given a key that is the id of a task, when the block is killed and the task succeeds, then one charge (L3)."""
    fleet.client("acme", 100)
    fleet.consumer(wait=False)
    fleet.worker(children=1)
    result = fleet.send("gated", "acme", "slow")
    started(fleet, "slow")
    process = start("once", "acme", "gate", result.id)
    started(fleet, "gate")
    process.kill()
    process.wait(120)
    (fleet.directory / "slow").touch()
    result.get(timeout=120)

    wait_until(lambda: not fleet.holds("acme"), "the hold expires")
    assert len(fleet.wait_for_rows(1)) == 1
    assert fleet.balance("acme").spent == 10


def test_killed_inside_the_block_the_same_key_goes_on_with_its_hold(fleet: Fleet, start: Start) -> None:
    """Given a killed block with a key, when the key comes again at once, then one hold, one charge, one row (L3)."""
    fleet.client("acme", 30)
    fleet.consumer(wait=False)
    first = start("once", "acme", "gate", "order")
    started(fleet, "gate")
    first.kill()
    first.wait(120)

    second = start("once", "acme", "gate", "order")
    started(fleet, "gate", 2)
    assert [hold.credits for hold in fleet.holds("acme")] == [20]
    (fleet.directory / "gate").touch()
    assert second.wait(120) == 0
    third = start("once", "acme", "gate", "order")
    assert third.wait(120) == 0

    assert noted(fleet.directory, "gate.ended") == [
        "charged",
        "key: 'order': client 'acme' was charged for it before; nothing was started",
    ]
    assert len(noted(fleet.directory, "gate.started")) == 2
    assert [(row.correlation_id, row.credits, row.late) for row in fleet.wait_for_rows(1)] == [("order", 10, False)]
    balance = fleet.balance("acme")
    assert (balance.available, balance.held, balance.spent) == (20, 0, 10)


def test_killed_after_the_settle_is_published_by_the_relay(fleet: Fleet, start: Start) -> None:
    """Given a process that is killed before it publishes, then its event arrives, and its key is used up (L3)."""
    fleet.client("acme", 100)
    fleet.consumer(wait=False)
    assert start("dies", "acme", "order").wait(120) == -signal.SIGKILL

    (row,) = fleet.wait_for_rows(1)
    assert (row.credits, row.correlation_id) == (10, "order")
    assert start("once", "acme", "gate", "order").wait(120) == 0
    assert "was charged for it before" in noted(fleet.directory, "gate.ended")[0]
    assert not noted(fleet.directory, "gate.started")
    assert fleet.balance("acme").spent == 10
    assert len(fleet.rows()) == 1
    report = admin.reconcile(fleet.settings, stripe=False)
    assert [(law.law, law.discrepancies) for law in report.laws if law.discrepancies] == []


def test_a_block_that_outlives_its_lease_keeps_its_hold(fleet: Fleet, start: Start) -> None:
    """Given a block that is three leases long, and a reaper, then it still holds, and is not charged late (L5)."""
    fleet.client("acme", 100)
    fleet.consumer()
    process = start("once", "acme", "gate")
    started(fleet, "gate")
    (hold,) = fleet.holds("acme")
    outlived_ms = hold.created_ms + LEASES * round(fleet.settings.lease_seconds * 1_000)

    def redis_ms() -> int:
        with redis.Redis.from_url(fleet.settings.redis_url) as client:
            seconds, microseconds = client.time()
        return int(seconds) * 1_000 + int(microseconds) // 1_000

    wait_until(lambda: redis_ms() > outlived_ms, "three leases have passed")
    (renewed,) = fleet.holds("acme")
    assert renewed.token == hold.token
    assert renewed.deadline_ms > outlived_ms
    (fleet.directory / "gate").touch()

    assert process.wait(120) == 0
    assert [(row.credits, row.late) for row in fleet.wait_for_rows(1)] == [(10, False)]


def test_a_script_that_ends_while_redis_is_away_is_charged(fleet: Fleet, start: Start) -> None:
    """Given work that is done, when Redis does not take its settle and the script ends, then it is charged (L3)."""
    fleet.client("acme", 100)
    fleet.consumer(wait=False)
    door = Proxy(*address_of(fleet.settings.redis_url))
    process = start("once", "acme", "gate", BILLING_REDIS_URL=door.url_through(fleet.settings.redis_url))
    started(fleet, "gate")
    door.shut()
    (fleet.directory / "gate").touch()

    assert process.wait(120) == 0
    door.close()

    assert noted(fleet.directory, "gate.ended") == ["pending"]
    assert [row.credits for row in fleet.wait_for_rows(1)] == [10]
    wait_until(lambda: books_agree(fleet), "the hold is gone, and the bucket has paid")
    assert len(fleet.rows()) == 1


def books_agree(fleet: Fleet) -> bool:
    """Whether the client's bucket says what the log says."""
    try:
        balance = fleet.balance("acme")
    except Recovering:
        return False
    return (balance.available, balance.held, balance.spent) == (90, 0, 10)


def test_a_block_keeps_its_hold_when_redis_loses_everything(fleet: Fleet, start: Start) -> None:
    """Given a block that goes on, when Redis is emptied, then its process asserts the hold; one charge (L6)."""
    fleet.client("acme", 100)
    fleet.consumer(wait=False)
    process = start("once", "acme", "gate")
    started(fleet, "gate")
    with redis.Redis.from_url(fleet.settings.redis_url) as client:
        client.flushall()

    def held() -> int:
        try:
            return fleet.balance("acme").held
        except Recovering:
            return 0

    wait_until(lambda: held() == 20, "the shard is rebuilt with the hold")
    (fleet.directory / "gate").touch()
    assert process.wait(120) == 0

    assert [(row.credits, row.late) for row in fleet.wait_for_rows(1)] == [(10, False)]
    balance = fleet.balance("acme")
    assert (balance.available, balance.held, balance.spent, balance.epoch) == (90, 0, 10, 2)


def test_a_crowd_is_admitted_up_to_the_ceiling_exactly(fleet: Fleet, start: Start) -> None:
    """Given 500 credits, when 104 threads of 8 processes reserve 75 at once, then exactly 6 are admitted (L1)."""
    fleet.client("acme", 500)
    fleet.consumer(wait=False)
    crowd = [start("crowd", "acme", "13") for _ in range(8)]
    wait_until(lambda: len(noted(fleet.directory, "ready")) == 8, "all are ready")
    (fleet.directory / "go").touch()

    wait_until(lambda: len(noted(fleet.directory, "answers")) == 104, "all have their answer")
    assert noted(fleet.directory, "answers").count("admitted") == 6
    balance = fleet.balance("acme")
    assert (balance.available, balance.held) == (50, 450)
    (fleet.directory / "all-answered").touch()
    assert [process.wait(120) for process in crowd] == [0] * 8

    rows = fleet.wait_for_rows(6)
    assert [row.credits for row in rows] == [75] * 6
    balance = fleet.balance("acme")
    assert (balance.available, balance.held, balance.spent) == (50, 0, 450)
