"""What is charged for each way in which a task can end, on real prefork workers (L2, L3, L5)."""

from __future__ import annotations

from typing import Any

import pytest
from celery.exceptions import TimeoutError as ResultTimeout

from billing import InsufficientCredits, UnknownClient
from tests.integration.fleet.harness import Fleet
from tests.integration.fleet.tasks import OTHER_SKU, SKU, noted
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


def send(fleet: Fleet, name: str, *args: Any, **kwargs: Any) -> Any:
    """Submit a task of the fleet."""
    return fleet.app.tasks[name].apply_async(args, kwargs)


def test_a_success_is_one_row_and_its_exact_price(fleet: Fleet) -> None:
    """Given credits, when tasks succeed, then each is one row, and the bucket has paid exactly that (L2, L3)."""
    fleet.client("acme", 1_000)
    fleet.worker()
    fleet.consumer()

    results = [send(fleet, "ok", "acme", number) for number in range(20)]

    assert [result.get(timeout=30) for result in results] == list(range(20))
    rows = fleet.wait_for_rows(20)
    assert sorted(row.correlation_id for row in rows) == sorted(result.id for result in results)
    assert {(row.sku, row.quantity, row.credits, row.late, row.attempt) for row in rows} == {(SKU, 1, 10, False, 1)}
    balance = fleet.balance("acme")
    assert (balance.available, balance.held, balance.spent) == (800, 0, 200)
    assert send(fleet, "free").get(timeout=10) == "unbilled"


def test_endings_without_success_charge_nothing_and_hold_nothing(fleet: Fleet) -> None:
    """Given credits, when tasks end otherwise, then no row, no charge, no hold (L3, L5)."""
    fleet.client("acme", 100)
    fleet.worker()
    fleet.consumer()

    with pytest.raises(ValueError, match="acme"):
        send(fleet, "fails", "acme").get(timeout=20)
    send(fleet, "ignores", "acme")
    send(fleet, "rejects", "acme")
    with pytest.raises(Exception, match="not JSON serializable|EncodeError|object"):
        send(fleet, "unencodable", "acme").get(timeout=20)
    wait_until(lambda: noted(fleet.directory, "rejects.run"), "the rejected task ran")
    send(fleet, "ok", "acme").get(timeout=20)

    assert len(fleet.wait_for_rows(1)) == 1
    wait_until(lambda: not fleet.holds("acme"), "no hold is left")
    balance = fleet.balance("acme")
    assert (balance.available, balance.held, balance.spent) == (90, 0, 10)


def test_retries_keep_one_hold_and_charge_once(fleet: Fleet) -> None:
    """Given a task that retries three times, then one row of the last attempt and one price (L3, L4)."""
    fleet.client("acme", 10)
    fleet.worker()
    fleet.consumer()

    result = send(fleet, "retries", "acme", 3)

    assert result.get(timeout=30) == 3
    assert noted(fleet.directory, "retries.run") == ["0", "1", "2", "3"]
    rows = fleet.wait_for_rows(1)
    assert [(row.credits, row.attempt) for row in rows] == [(10, 4)]
    assert fleet.balance("acme").spent == 10


def test_a_client_without_credits_is_refused_and_its_task_does_not_run(fleet: Fleet) -> None:
    """Given 25 credits and a price of 10, when three tasks are sent, then the third is refused (L1)."""
    fleet.client("acme", 25)
    fleet.worker(children=1)
    fleet.consumer()

    results = [send(fleet, "ok", "acme", number) for number in range(3)]

    assert [result.get(timeout=20) for result in results[:2]] == [0, 1]
    with pytest.raises(InsufficientCredits) as refused:
        results[2].get(timeout=20)
    assert refused.value.args == ("acme", SKU, 10, 5)
    assert len(fleet.wait_for_rows(2)) == 2
    assert fleet.balance("acme").available == 5


def test_an_unknown_client_or_a_missing_one_fails_before_it_runs(fleet: Fleet) -> None:
    """Given nobody, when a task is sent for nobody, then it fails and names the client."""
    fleet.worker(children=1)

    with pytest.raises(UnknownClient, match="nobody"):
        send(fleet, "ok", "nobody").get(timeout=20)
    with pytest.raises(Exception, match="client_id"):
        send(fleet, "ok", "two words").get(timeout=20)


def test_the_most_is_held_and_the_actual_is_charged(fleet: Fleet) -> None:
    """Given a reservation of 50, when 2 units are recorded, then 20 are charged; without a record, all 50."""
    fleet.client("acme", 200)
    fleet.worker(children=1)
    fleet.consumer()

    send(fleet, "metered", "acme", 5, 2).get(timeout=20)
    send(fleet, "metered", "acme", 5, None).get(timeout=20)
    send(fleet, "metered", "acme", 5, 0).get(timeout=20)

    rows = fleet.wait_for_rows(3)
    assert sorted(row.credits for row in rows) == [0, 20, 50]
    assert fleet.balance("acme").available == 130


def test_more_than_was_held_is_charged_and_what_nothing_covers_is_owed(fleet: Fleet) -> None:
    """Given 30 credits and a hold of 10, when 5 units are used, then 20 are owed and the next task is refused (L2)."""
    fleet.client("acme", 30)
    fleet.worker(children=1)
    fleet.consumer()

    send(fleet, "metered", "acme", 1, 5).get(timeout=20)

    assert [row.credits for row in fleet.wait_for_rows(1)] == [50]
    balance = fleet.balance("acme")
    assert (balance.available, balance.spent, balance.owed) == (0, 50, 20)
    with pytest.raises(InsufficientCredits):
        send(fleet, "ok", "acme").get(timeout=20)


def test_a_run_with_several_skus_is_one_event_with_one_row_each(fleet: Fleet) -> None:
    """Given a task that uses two SKUs, then two rows of one run, rated apart."""
    fleet.client("acme", 100)
    fleet.worker(children=1)
    fleet.consumer()

    result = send(fleet, "lines", "acme", 3)
    result.get(timeout=20)

    rows = fleet.wait_for_rows(2)
    assert {(row.sku, row.quantity, row.credits) for row in rows} == {(SKU, 1, 10), (OTHER_SKU, 3, 9)}
    assert {row.correlation_id for row in rows} == {result.id}
    assert fleet.balance("acme").spent == 19


def test_overridden_and_raising_hooks_do_not_switch_billing_off(fleet: Fleet) -> None:
    """Given hooks overridden by a class and by a decorator option, then each success is charged once."""
    fleet.client("acme", 100)
    fleet.worker(children=1)
    fleet.consumer()

    send(fleet, "hooked", "acme")
    assert send(fleet, "decorated", "acme").get(timeout=20) == "done"

    assert len(fleet.wait_for_rows(2)) == 2
    assert fleet.balance("acme").spent == 20


def test_a_task_that_a_billed_task_sends_is_a_run_of_its_own(fleet: Fleet) -> None:
    """Given a billed task that submits another, then both are charged, each once."""
    fleet.client("acme", 100)
    fleet.worker()
    fleet.consumer()

    child_id = send(fleet, "parent", "acme").get(timeout=20)

    rows = fleet.wait_for_rows(2)
    assert child_id in {row.correlation_id for row in rows}
    assert fleet.balance("acme").spent == 20


def test_a_child_killed_while_running_is_redelivered_and_charged_once(fleet: Fleet) -> None:
    """Given a task whose process dies by SIGKILL, when it is redelivered and succeeds, then one row (L3)."""
    fleet.client("acme", 10)
    fleet.worker(children=2)
    fleet.consumer()

    assert send(fleet, "killed_once", "acme", "victim").get(timeout=40) == 2

    assert len(fleet.wait_for_rows(1)) == 1
    balance = fleet.balance("acme")
    assert (balance.spent, balance.held) == (10, 0)


def test_a_hold_whose_worker_died_for_good_comes_back_within_lease_and_sweep(fleet: Fleet) -> None:
    """Given a worker killed with its parent and no other, then the reaper gives the hold back (L5)."""
    fleet.client("acme", 10)
    fleet.consumer()
    worker = fleet.worker(children=1)
    send(fleet, "gated", "acme", "never")
    wait_until(lambda: noted(fleet.directory, "never.started"), "the task runs")
    assert fleet.balance("acme").held == 10

    worker.kill()

    wait_until(lambda: fleet.balance("acme").available == 10, "the hold is back", timeout_seconds=20)
    assert fleet.rows() == []


def test_a_run_longer_than_its_lease_keeps_its_hold(fleet: Fleet) -> None:
    """Given a lease of 3 s and a run that lasts until three leases have passed, then its hold stays (L5)."""
    fleet.client("acme", 10)
    fleet.consumer()
    fleet.worker(children=1)
    result = send(fleet, "gated", "acme", "long")
    wait_until(lambda: fleet.holds("acme"), "the hold is there")
    first = fleet.holds("acme")[0].deadline_ms

    def renewed() -> bool:
        return fleet.holds("acme")[0].deadline_ms > first + 9_000

    wait_until(renewed, "three leases were renewed", timeout_seconds=30)
    (fleet.directory / "long").touch()

    assert result.get(timeout=20) == 0
    assert [row.late for row in fleet.wait_for_rows(1)] == [False]


def test_the_result_of_a_task_that_waits_for_nothing_times_out(fleet: Fleet) -> None:
    """A control: without a worker nothing is charged and nothing is held."""
    fleet.client("acme", 10)
    with pytest.raises(ResultTimeout):
        send(fleet, "ok", "acme").get(timeout=0.5)
    assert fleet.balance("acme").available == 10
