"""Top-ups and allowances through real processes: a client runs low in a worker, the fulfillment worker sees to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from billing import admin
from billing.integration.schedule import QUEUE, build_schedule
from tests.fleet.harness import Fleet
from tests.integration.topping_up import CALLS_FILE, HOOK
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def fleet_settings(tmp_path: Path) -> dict[str, str]:
    return {"BILLING_TOP_UP_HOOK": HOOK, CALLS_FILE: str(tmp_path / "calls")}


def test_a_client_that_runs_low_is_topped_up_and_an_allowance_is_granted_once(fleet: Fleet, tmp_path: Path) -> None:
    """Given 100 credits, when tasks spend 90, then the hook is called once, and the client may go on.

    Given an allowance and beat's entries sent three times each beside the loops, then its period has one grant.
    """
    client = fleet.client("acme", 100)
    admin.set_top_up(fleet.settings, client, 500, below_percent=20)
    fleet.consumer()
    fleet.worker(children=1)
    for _ in range(9):
        fleet.send("ok", client).get(timeout=60)

    wait_until(lambda: admin.balance(fleet.settings, client).available == 510, "it is topped up", timeout_seconds=120)
    fleet.send("ok", client).get(timeout=60)
    (row,) = admin.top_up(fleet.settings, client).requests
    assert (row.state, row.credits, row.attempts) == ("granted", 500, 1)

    made, _ = admin.add_allowance(fleet.settings, client, 50, key="plan")
    for name in ("billing.allowances.grant", "billing.top_ups.run", "billing.alerts.deliver"):
        entry = build_schedule()[name]
        results = [fleet.app.send_task(entry["task"], queue=QUEUE, ignore_result=False) for _ in range(3)]
        for result in results:
            result.get(timeout=60)
    assert (tmp_path / "calls").read_text() == f"{row.request_id}\n"
    assert admin.balance(fleet.settings, client).granted == 100 + 500 + 50
    (listed,) = admin.allowances(fleet.settings, client_id=client)
    assert (listed.schedule_id, listed.following) == (made.schedule_id, 1)
