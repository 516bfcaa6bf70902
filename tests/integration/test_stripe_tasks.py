"""Beat's tasks for Stripe, run by a real worker: doubled, they report each credit once (L8)."""

from __future__ import annotations

import pytest

from billing import admin
from billing.integration.schedule import QUEUE, build_schedule
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.fleet.harness import Fleet
from tests.integration.syncing import METER
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def fleet_settings(stripe_sandbox: SandboxControl) -> dict[str, str]:
    return {"BILLING_STRIPE_SANDBOX_URL": stripe_sandbox.url, "BILLING_STRIPE_PERIODS": "calendar"}


def test_given_each_entry_of_beat_twice_then_stripe_has_what_the_log_has(
    fleet: Fleet, stripe_sandbox: SandboxControl
) -> None:
    """Given runs that were charged, when each task is sent twice, then every credit is reported once."""
    with Gateway(fleet.settings) as gateway:
        gateway.setup()
        customer = gateway.create_customer("acme")
    fleet.client("acme", 1_000)
    admin.link_client(fleet.settings, "acme", customer)
    fleet.consumer(wait=False)
    fleet.worker()
    for _ in range(5):
        fleet.send("ok", "acme")
    used = sum(row.credits for row in fleet.wait_for_rows(5))

    wanted = {"billing.stripe.plan": "pending", "billing.stripe.push": "sent", "billing.stripe.confirm": "confirmed"}
    for name, state in wanted.items():
        entry = build_schedule()[name]
        for _ in range(2):
            fleet.app.send_task(entry["task"], **{**entry["options"], "queue": QUEUE})

        def there(state: str = state) -> bool:
            return admin.sync_status(fleet.settings).units(state) == used

        wait_until(there, f"{used} units are {state}")

    entry = build_schedule()["billing.stripe.errors"]
    for _ in range(2):
        fleet.app.send_task(entry["task"], **{**entry["options"], "queue": QUEUE})
    wait_until(lambda: _calls(stripe_sandbox, "/v2/core/events") >= 2, "Stripe's reports were read twice")

    assert used == 50
    assert stripe_sandbox.total(customer, METER) == used
    status = admin.sync_status(fleet.settings)
    assert (status.units(), status.unplanned.credits, status.unlinked.credits) == (used, 0, 0)


def _calls(stripe_sandbox: SandboxControl, path: str) -> int:
    return sum(call["path"] == path for call in stripe_sandbox.requests())
