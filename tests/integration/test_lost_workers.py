"""What becomes of a run whose process or whole worker dies, or that outlives its lease (L3, L5)."""

from __future__ import annotations

import pytest

from tests.fleet.harness import Fleet
from tests.fleet.tasks import noted
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


def test_a_child_killed_while_running_is_redelivered_and_charged_once(fleet: Fleet) -> None:
    """Given a task whose process dies by SIGKILL, when it is redelivered and succeeds, then one row (L3)."""
    fleet.client("acme", 10)
    fleet.consumer(wait=False)
    fleet.worker(children=2)

    assert fleet.send("killed_once", "acme", "victim").get(timeout=120) == 2

    assert len(fleet.wait_for_rows(1)) == 1
    balance = fleet.balance("acme")
    assert (balance.spent, balance.held) == (10, 0)


def test_a_hold_whose_worker_died_for_good_comes_back_within_lease_and_sweep(fleet: Fleet) -> None:
    """Given a worker killed with its parent and no other, then the reaper gives the hold back (L5)."""
    fleet.client("acme", 10)
    fleet.consumer(wait=False)
    worker = fleet.worker(children=1)
    fleet.send("gated", "acme", "never")
    wait_until(lambda: noted(fleet.directory, "never.started"), "the task runs")
    assert fleet.balance("acme").held == 10

    worker.kill()

    wait_until(lambda: fleet.balance("acme").available == 10, "the hold is back")
    assert fleet.rows() == []


def test_a_run_longer_than_its_lease_keeps_its_hold(fleet: Fleet) -> None:
    """Given a lease of 3 s and a run that lasts until three leases have passed, then its hold stays (L5)."""
    fleet.client("acme", 10)
    fleet.consumer(wait=False)
    fleet.worker(children=1)
    result = fleet.send("gated", "acme", "long")
    wait_until(lambda: fleet.holds("acme"), "the hold is there")
    first = fleet.holds("acme")[0].deadline_ms

    def renewed() -> bool:
        return fleet.holds("acme")[0].deadline_ms > first + 9_000

    wait_until(renewed, "three leases were renewed")
    (fleet.directory / "long").touch()

    assert result.get(timeout=120) == 0
    assert [row.late for row in fleet.wait_for_rows(1)] == [False]
