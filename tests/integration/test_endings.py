"""What a run is charged for what it used, on real prefork workers (L2, L3). Every ending is in tests/endings."""

from __future__ import annotations

import pytest

from billing import InsufficientCredits, UnknownClient
from tests.fleet.harness import Fleet
from tests.fleet.tasks import OTHER_SKU, SKU, noted

pytestmark = pytest.mark.integration


@pytest.fixture
def fleet(running_fleet: Fleet) -> Fleet:
    """Return the module's fleet: each test has clients of its own."""
    return running_fleet


def test_a_success_is_one_row_and_its_exact_price(fleet: Fleet) -> None:
    """Given credits, when tasks succeed, then each is one row, and the bucket has paid exactly that (L2, L3)."""
    fleet.client("acme", 1_000)

    results = [fleet.send("ok", "acme", number) for number in range(20)]

    assert [result.get(timeout=120) for result in results] == list(range(20))
    rows = fleet.wait_for_rows(20, "acme")
    assert sorted(row.correlation_id for row in rows) == sorted(result.id for result in results)
    assert {(row.sku, row.quantity, row.credits, row.late, row.attempt) for row in rows} == {(SKU, 1, 10, False, 1)}
    balance = fleet.balance("acme")
    assert (balance.available, balance.held, balance.spent) == (800, 0, 200)
    assert fleet.send("free").get(timeout=120) == "unbilled"


def test_retries_keep_one_hold_and_charge_once(fleet: Fleet) -> None:
    """Given a task that retries three times, then one row of the last attempt and one price (L3, L4)."""
    fleet.client("cedar", 10)

    result = fleet.send("retries", "cedar", 3)

    assert result.get(timeout=120) == 3
    assert noted(fleet.directory, "retries.run") == ["0", "1", "2", "3"]
    rows = fleet.wait_for_rows(1, "cedar")
    assert [(row.credits, row.attempt) for row in rows] == [(10, 4)]
    assert fleet.balance("cedar").spent == 10


def test_a_client_without_credits_is_refused_and_its_task_does_not_run(fleet: Fleet) -> None:
    """Given 25 credits and a price of 10, when three tasks are sent, then the third is refused (L1)."""
    fleet.client("delta", 25)

    results = [fleet.send("ok", "delta", number) for number in range(2)]

    # Sent when these have ended: of tasks that wait together any may come last.
    assert [result.get(timeout=120) for result in results] == [0, 1]
    with pytest.raises(InsufficientCredits) as refused:
        fleet.send("ok", "delta", 2).get(timeout=120)
    assert refused.value.args == ("delta", SKU, 10, 5)
    assert len(fleet.wait_for_rows(2, "delta")) == 2
    assert fleet.balance("delta").available == 5


def test_an_unknown_client_or_a_missing_one_fails_before_it_runs(fleet: Fleet) -> None:
    """Given nobody, when a task is sent for nobody, then it fails and names the client."""
    with pytest.raises(UnknownClient, match="nobody"):
        fleet.send("ok", "nobody").get(timeout=120)
    with pytest.raises(Exception, match="client_id"):
        fleet.send("ok", "two words").get(timeout=120)


def test_the_most_is_held_and_the_actual_is_charged(fleet: Fleet) -> None:
    """Given a reservation of 50, when 2 units are recorded, then 20 are charged; without a record, all 50."""
    fleet.client("fjord", 200)

    fleet.send("metered", "fjord", 5, 2).get(timeout=120)
    fleet.send("metered", "fjord", 5, None).get(timeout=120)
    fleet.send("metered", "fjord", 5, 0).get(timeout=120)

    rows = fleet.wait_for_rows(3, "fjord")
    assert sorted(row.credits for row in rows) == [0, 20, 50]
    assert fleet.balance("fjord").available == 130


def test_more_than_was_held_is_charged_and_what_nothing_covers_is_owed(fleet: Fleet) -> None:
    """Given 30 credits and a hold of 10, when 5 units are used, then 20 are owed and the next task is refused (L2)."""
    fleet.client("grove", 30)

    fleet.send("metered", "grove", 1, 5).get(timeout=120)

    assert [row.credits for row in fleet.wait_for_rows(1, "grove")] == [50]
    balance = fleet.balance("grove")
    assert (balance.available, balance.spent, balance.owed) == (0, 50, 20)
    with pytest.raises(InsufficientCredits):
        fleet.send("ok", "grove").get(timeout=120)


def test_a_run_with_several_skus_is_one_event_with_one_row_each(fleet: Fleet) -> None:
    """Given a task that uses two SKUs, then two rows of one run, rated apart."""
    fleet.client("harbor", 100)

    result = fleet.send("lines", "harbor", 3)
    result.get(timeout=120)

    rows = fleet.wait_for_rows(2, "harbor")
    assert {(row.sku, row.quantity, row.credits) for row in rows} == {(SKU, 1, 10), (OTHER_SKU, 3, 9)}
    assert {row.correlation_id for row in rows} == {result.id}
    assert fleet.balance("harbor").spent == 19
