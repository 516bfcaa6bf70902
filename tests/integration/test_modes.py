"""Runs outside the ceiling by real workers: dry runs charge nothing, runs without Redis are charged once (L2, L3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
import pytest

from billing import admin
from billing.embedded.stack import Stack
from billing.reconciliation.report import Report
from tests.fleet.harness import Fleet
from tests.fleet.tasks import noted
from tests.hanging import hanging
from tests.integration.test_faults import is_open
from tests.terminal import NOWHERE, Terminal
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

DRY = {"BILLING_DRY_RUN": "true"}
METERED = {"BILLING_ON_REDIS_DOWN": "meter_only"}


def start(fleet: Fleet, environment: Mapping[str, str]) -> None:
    """Run a consumer, and a worker with further settings."""
    fleet.consumer(wait=False)
    fleet.start("worker", children=2, environment=environment)
    for name in ("consumer", "worker"):
        fleet.wait_ready(name)


def send(fleet: Fleet, name: str, *args: Any, **options: Any) -> None:
    """Submit a task whose result nobody stores: the results' server is away in some of these tests."""
    fleet.app.tasks[name].apply_async(args, ignore_result=True, **options)


def laws(fleet: Fleet) -> Report:
    """Reconcile, and return the report."""
    return admin.reconcile(fleet.settings)


def dead_letters(fleet: Fleet) -> int:
    """Return how many events the log refused."""
    with psycopg.connect(fleet.settings.database_url) as connection:
        found = connection.execute("SELECT count(*) FROM dead_letter").fetchone()
    assert found is not None
    return int(found[0])


def counted(fleet: Fleet) -> dict[str, tuple[int, int, Mapping[str, int], int]]:
    """Return what dry runs counted: runs, admitted, denied, credits."""
    counts = admin.dry_runs(fleet.settings)
    return {found.task: (found.runs, found.admitted, found.denied, found.credits) for found in counts}


def test_l3_dry_runs_refuse_nothing_charge_nothing_and_are_counted(fleet: Fleet, stack: Stack) -> None:
    """Given a dry fleet, then all that would be denied runs: no hold, no charge, a row of no credits for each success.

    No client, no credits, no price, no such client, Redis that answers nothing; a failure has no row.
    """
    fleet.client("acme", 100)
    fleet.client("poor", 5)
    start(fleet, DRY)

    assert fleet.send("ok", "acme", 1).get(timeout=120) == 1
    assert fleet.send("ok", "poor", 2).get(timeout=120) == 2
    assert fleet.send("ok", "nobody", 3).get(timeout=120) == 3
    # By name: an app of which a dry run is not said refuses such a call when it is submitted.
    assert fleet.app.send_task("ok", (None, 4)).get(timeout=120) == 4
    assert fleet.send("unpriced", "poor").get(timeout=120) == "done"
    assert fleet.send("lines", "poor", 7).get(timeout=120) == 7
    with pytest.raises(ValueError, match="acme"):
        fleet.send("fails", "acme").get(timeout=120)
    with hanging(stack.valkey.child.child_pid):
        send(fleet, "ok", "poor", 5)
        rows = fleet.wait_for_rows(6)

    assert sorted((row.client_id, row.sku, row.quantity) for row in rows) == [
        ("acme", "unit", 1),
        ("poor", "extra", 7),
        ("poor", "nothing", 1),
        ("poor", "unit", 1),
        ("poor", "unit", 1),
        ("poor", "unit", 1),
    ]
    assert {(row.mode, row.credits, row.late) for row in rows} == {("dry_run", 0, False)}
    expected = {
        "ok": (5, 1, {"insufficient": 1, "invalid_value": 1, "unknown_client": 1, "unreachable": 1}, 20),
        "unpriced": (1, 0, {"unknown_sku": 1}, 0),
        "lines": (1, 0, {"insufficient": 1}, 31),
        "fails": (1, 1, {}, 0),
    }
    wait_until(lambda: counted(fleet) == expected, "all is counted")
    for client_id, granted in (("acme", 100), ("poor", 5)):
        balance = fleet.balance(client_id)
        assert (balance.available, balance.held, balance.spent, balance.owed) == (granted, 0, 0, 0)
        assert not fleet.holds(client_id)
    assert dead_letters(fleet) == 0
    report = laws(fleet)
    assert report.ok, report.discrepancies
    log = (fleet.directory / "worker.log").read_text()
    assert "would have been denied: client poor, SKU unit, required 10, available 5: insufficient" in log


def test_l2_while_redis_is_away_a_metered_fleet_runs_and_is_charged_once(fleet: Fleet, stack: Stack) -> None:
    """Given no Redis, then tasks run, each one row, delivered once or twice; back again, every credit is exact."""
    fleet.client("acme", 45)
    start(fleet, METERED)
    send(fleet, "ok", "acme")
    fleet.wait_for_rows(1)

    stack.valkey.kill()
    for _ in range(2):
        send(fleet, "ok", "acme", task_id="twice", headers={"billing_at": 1_790_000_000_000, "billing_nonce": "n"})
    send(fleet, "metered", "acme", 9, 3)
    send(fleet, "fails", "acme")
    send(fleet, "gated", "acme", "gate")
    wait_until(lambda: noted(fleet.directory, "gate.started"), "the task runs without Redis")
    fleet.wait_for_rows(3)
    stack.valkey.restart()
    wait_until(lambda: is_open(fleet, "acme"), "the shard is open")
    (fleet.directory / "gate").touch()

    rows = fleet.wait_for_rows(4)
    assert sorted((row.mode or "", row.credits) for row in rows) == [
        ("", 10),
        ("meter_only", 10),
        ("meter_only", 10),
        ("meter_only", 30),
    ]

    def spent() -> tuple[int, int, int, int]:
        balance = fleet.balance("acme")
        return balance.spent, balance.held, balance.available, balance.owed

    # The last one found the rebuilt bucket, and was posted to it: 15 more than there was is owed.
    wait_until(lambda: spent() == (60, 0, 0, 15), "every charge is in the bucket")
    assert len(fleet.rows()) == 4
    report = laws(fleet)
    assert report.ok, report.discrepancies


def test_the_command_shows_counts_and_begins_anew(fleet: Fleet, terminal: Terminal) -> None:
    """Given counts, then `billing dry-run` shows them by task, as JSON too, and forgets them when told to."""
    fleet.buckets.count("one", {"admitted:a:b": 3, "insufficient:a:b": 2, "credits:a:b": 70})
    fleet.buckets.count("one", {"admitted:a:b": 3})
    expected = {"task": "a:b", "runs": 5, "admitted": 3, "denied": {"insufficient": 2}, "credits": 70}
    assert terminal.type("dry-run", "--json").json() == [expected]
    shown = terminal.type("dry-run", "--reset")
    assert (shown.code, "insufficient 2" in shown.out) == (0, True)
    assert terminal.type("dry-run", "--json").json() == []
    terminal.type("dry-run", BILLING_REDIS_URL=NOWHERE["BILLING_REDIS_URL"]).refused(1, "billing_redis_url")
