"""Parked tasks through real workers: they wait in PostgreSQL, and start in order once their client can pay (L1, L3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from billing import InsufficientCredits, admin
from billing.core.errors import Cancelled, ParkedTooLong
from billing.embedded.stack import Stack
from billing.integration.schedule import QUEUE, build_schedule
from tests.fleet.fixtures import make_fleet, module_servers
from tests.fleet.harness import Fleet
from tests.fleet.tasks import SKU
from tests.integration.parking import PARKING, rows, wait_parked
from tests.proxy import Proxy, in_front_of
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def servers(stack: Stack) -> Iterator[dict[str, str]]:
    with module_servers(stack) as made:
        yield made | PARKING


@pytest.fixture(scope="module")
def doorway(servers: dict[str, str]) -> Iterator[tuple[Proxy, str]]:
    """Stand between the worker and PostgreSQL."""
    with in_front_of(servers["BILLING_DATABASE_URL"]) as door_and_url:
        yield door_and_url


@pytest.fixture(scope="module")
def parking_fleet(
    servers: dict[str, str], doorway: tuple[Proxy, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    """Run a worker and a consumer whose policy is to park, for the whole module."""
    # A test that shuts the door waits for so long, and longer.
    worker = {"BILLING_DATABASE_URL": doorway[1], "BILLING_DATABASE_TIMEOUT_SECONDS": "1"}
    with make_fleet(servers, tmp_path_factory.mktemp("parking")) as fleet:
        fleet.start("worker", environment=worker)
        fleet.consumer()
        fleet.wait_ready("worker")
        yield fleet


def end(results: list[Any]) -> None:
    """Wait for no more results: a test whose task waits for ever still unsubscribes."""
    for result in results:
        result.forget()


def test_a_grant_starts_as_many_as_it_pays_in_the_order_of_parking(parking_fleet: Fleet) -> None:
    """Given 20 parked tasks, when a grant pays 7, then the first 7 run; the next grant starts the rest (L1)."""
    fleet, client = parking_fleet, parking_fleet.client("acme", 5)
    results = [fleet.send("ok", client, number) for number in range(20)]
    wait_parked(fleet, client, 20)
    assert fleet.holds(client) == []
    assert {result.state for result in results} == {"PENDING"}
    sent = {result.id: number for number, result in enumerate(results)}
    order = [row["task_id"] for row in rows(fleet, client)]
    results.sort(key=lambda result: order.index(result.id))

    admin.grant(fleet.settings, client, 67, key="seven")

    assert [result.get(timeout=120) for result in results[:7]] == [sent[task_id] for task_id in order[:7]]
    assert len(fleet.wait_for_rows(7, client)) == 7
    assert [row["state"] for row in rows(fleet, client)] == ["started"] * 7 + ["waiting"] * 13
    assert fleet.balance(client).available == 2
    admin.grant(fleet.settings, client, 130, key="rest")
    assert [result.get(timeout=120) for result in results[7:]] == [sent[task_id] for task_id in order[7:]]
    charged = fleet.wait_for_rows(20, client)
    assert sorted(row.correlation_id for row in charged) == sorted(order)
    balance = fleet.balance(client)
    assert (balance.available, balance.held, balance.spent) == (2, 0, 200)
    # Beat's entry, for fleets without the loop.
    entry = build_schedule()["billing.parked.start"]
    assert fleet.app.send_task(entry["task"], queue=QUEUE, ignore_result=False).get(timeout=120) == 0
    # Each was handed over once: none of them came back to find the credits gone.
    assert {row["times"] for row in rows(fleet, client)} == {1}


def test_the_message_is_handed_over_whole(parking_fleet: Fleet) -> None:
    """Given a chain's task with headers, a callback, and a priority, when it was parked, then it is the same run."""
    fleet, client = parking_fleet, parking_fleet.client("basalt", 5)
    ok = fleet.app.tasks["ok"]
    result = ok.apply_async((client,), {"value": 3}, headers={"traceparent": "00-1"}, link=fleet.app.tasks["free"].si())
    wait_parked(fleet, client, 1)
    (row,) = rows(fleet, client)
    assert (row["task"], row["task_id"], row["sku"], row["credits"], row["available"]) == ("ok", result.id, SKU, 10, 5)
    admin.grant(fleet.settings, client, 5, key="more")

    assert result.get(timeout=120) == 3
    (charged,) = fleet.wait_for_rows(1, client)
    assert charged.correlation_id == result.id
    with psycopg.connect(fleet.settings.database_url) as connection:
        query = "SELECT run_id FROM usage_history WHERE client_id = %s"
        assert connection.execute(query, [client]).fetchone() == (row["run_id"],)
    assert "00-1" in row["headers"]
    children: Any = result
    wait_until(lambda: children.children and children.children[0].ready(), "the callback ran")


def test_a_cancelled_task_and_one_that_waited_too_long_fail_at_their_callers(parking_fleet: Fleet) -> None:
    """Given parked tasks, when one is cancelled and one expires, then their callers are told which, and none runs."""
    fleet, client = parking_fleet, parking_fleet.client("cedar", 5)
    first, second = (fleet.send("ok", client, number) for number in range(2))
    chained = (fleet.app.tasks["ok"].si(client) | fleet.app.tasks["free"].si()).apply_async()
    wait_parked(fleet, client, 3)
    ids = [row["parked_id"] for row in rows(fleet, client)]

    assert [row.parked_id for row in admin.cancel_parked(fleet.settings, parked_id=ids[0])] == ids[:1]
    with psycopg.connect(fleet.settings.database_url) as connection:
        connection.execute("UPDATE parked_task SET expires_at = now() WHERE parked_id = ANY(%s)", [ids[1:]])

    with pytest.raises(Cancelled) as cancelled:
        first.get(timeout=120)
    assert cancelled.value.args == (client, ids[0])
    with pytest.raises(ParkedTooLong) as expired:
        second.get(timeout=120)
    assert expired.value.args == (client, SKU, 10, 5)
    with pytest.raises(ParkedTooLong):
        chained.get(timeout=120)
    assert [row["state"] for row in rows(fleet, client)] == ["cancelled", "expired", "expired"]
    admin.grant(fleet.settings, client, 100, key="late")
    assert fleet.send("ok", client, 9).get(timeout=120) == 9
    assert len(fleet.wait_for_rows(1, client)) == 1


def test_one_more_than_the_bound_fails_and_no_other_client_waits(parking_fleet: Fleet) -> None:
    """Given a client with 20 waiting, then its next fails as without parking, and others start as ever (L9, L10)."""
    fleet, full, other = parking_fleet, parking_fleet.client("delta", 5), parking_fleet.client("elm", 5)
    big = fleet.send("metered", full, 1_000, None)
    small = [fleet.send("ok", full) for _ in range(19)]
    wait_parked(fleet, full, 20)

    with pytest.raises(InsufficientCredits) as refused:
        fleet.send("ok", full).get(timeout=120)
    assert refused.value.args == (full, SKU, 10, 5)

    waiting = fleet.send("ok", other, 4)
    wait_parked(fleet, other, 1)
    # Enough for each of the small ones, which come behind the big one.
    admin.grant(fleet.settings, full, 500, key="not enough")
    admin.grant(fleet.settings, other, 5, key="enough")
    assert waiting.get(timeout=120) == 4
    assert {row["state"] for row in rows(fleet, full)} == {"waiting"}
    assert len(admin.cancel_parked(fleet.settings, client_id=full)) == 20
    with pytest.raises(Cancelled):
        big.get(timeout=120)
    end(small)


def test_a_task_that_cannot_be_parked_now_is_put_off_and_parked_later(
    parking_fleet: Fleet, doorway: tuple[Proxy, str]
) -> None:
    """Given a PostgreSQL that hangs, or is down, when it is back, then the task is parked, and nothing is lost."""
    fleet, client = parking_fleet, parking_fleet.client("fir", 5)
    door, log = doorway[0], fleet.directory / "worker.log"
    results = []
    for number, disturb in enumerate((door.freeze, door.shut)):
        seen = log.stat().st_size
        disturb()
        results.append(fleet.send("ok", client, number))
        wait_until(lambda: "put_off" in log.read_bytes()[seen:].decode(errors="replace"), "it is put off")  # noqa: B023
        assert len(rows(fleet, client)) == number
        door.cut()
        door.reopen()
        wait_parked(fleet, client, number + 1)

    admin.grant(fleet.settings, client, 15, key="more")
    assert [result.get(timeout=120) for result in results] == [0, 1]
    assert len(fleet.wait_for_rows(2, client)) == 2
    assert fleet.balance(client).spent == 20
