"""Each fault shows in `billing doctor`, in a metric and as a firing alert of a real Prometheus, and clears again."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from billing import admin
from billing.embedded.stack import Stack
from tests.chaos.watched_faults import CLIENT, FAULTS, findings
from tests.deploy.watched import Watched, watched
from tests.fleet.fixtures import make_fleet, module_servers
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def watching(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Run a fleet that is watched, with a client that has used something."""
    with module_servers(stack) as servers:
        # Increments are planned for calendar months: a fleet that reports nothing has no Stripe that could be down.
        stripe = {
            "BILLING_STRIPE_SANDBOX_URL": stack.endpoints.stripe_sandbox_url,
            "BILLING_STRIPE_PERIODS": "calendar",
        }
        with make_fleet(servers | stripe, tmp_path_factory.mktemp("watched")) as fleet:
            fleet.client(CLIENT, 1_000)
            with watched(fleet) as made:
                fleet.send("ok", CLIENT).get(timeout=120)
                fleet.wait_for_rows(1)
                admin.link_client(fleet.settings, CLIENT, "cus_one", unchecked=True)
                # No beat runs here: what one of its minutes would send.
                fleet.app.send_task("billing.beat.seen", queue="billing.maintenance")
                assert admin.sync_plan(fleet.settings).increments == 1
                yield made


def wait_calm(watching: Watched, what: str) -> None:
    """Wait until no alert fires; say which ones do if that does not come."""
    try:
        wait_until(lambda: watching.prometheus.firing() == set(), what)
    except AssertionError as error:
        wrong = [found for found in findings(watching) if found["verdict"] != "ok"]
        message = f"{error}: {watching.prometheus.firing()} fire; doctor: {wrong}"
        raise AssertionError(message) from error


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_seen_by_doctor_metric_and_alert_and_clears_again(
    name: str, watching: Watched, stack: Stack
) -> None:
    """The test waits for conditions; how long each took is printed, and promtool holds the rules to a minute."""
    fault, asking = FAULTS[name], watching.prometheus
    wait_calm(watching, "nothing else is wrong")
    assert asking.query(fault.metric) == {}
    with fault.lasts(watching, stack):
        began = time.monotonic()
        wait_until(lambda: asking.query(fault.metric), f"a metric shows it: {fault.metric}")
        shown = time.monotonic() - began
        wait_until(lambda: watching.has_fired(*fault.alerts), f"{fault.alerts} fire")
        fired = time.monotonic() - began
        seen = [found for found in findings(watching) if found["part"] == fault.part and found["verdict"] != "ok"]
        assert any(fault.says in found["seen"] for found in seen), seen
        assert all(found["advice"] for found in seen), seen
    ended = time.monotonic()
    wait_until(lambda: asking.query(fault.metric) == {}, "the metric is as before")
    wait_calm(watching, "every alert has cleared")
    cleared = time.monotonic() - ended
    print(f"{name}: in a metric after {shown:.0f} s, alerts after {fired:.0f} s, cleared after {cleared:.0f} s")  # noqa: T201
    wait_until(lambda: not any(found["verdict"] == "fail" for found in findings(watching)), "doctor finds no failure")
