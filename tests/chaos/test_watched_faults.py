"""Each fault shows in `billing doctor`, in a metric, as a firing alert and on Flower's page, and clears again."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import httpx
import pytest

from billing import admin
from billing.embedded.stack import Stack
from tests.chaos.watched_faults import CLIENT, FAULTS, findings
from tests.deploy.watched import Watched, watched
from tests.fleet.fixtures import make_fleet, module_servers
from tests.integration.watching import flower_of
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


@pytest.fixture(scope="module")
def page(watching: Watched) -> Iterator[httpx.Client]:
    """Run a Flower beside the fleet."""
    with flower_of(watching.fleet, "flower") as http:
        yield http


def shows(page: httpx.Client, part: str) -> bool:
    """Whether the billing page says now that a part fails, in words."""
    text = " ".join(re.sub(r"<[^>]+>", " ", page.get("/billing").raise_for_status().text).split())
    return f"fail {part} :" in text or f"fail {part}:" in text


def wait_calm(watching: Watched, what: str) -> None:
    """Wait until no alert fires; say which ones do if that does not come."""
    try:
        wait_until(lambda: watching.prometheus.firing() == set(), what)
    except AssertionError as error:
        wrong = [found for found in findings(watching) if found["verdict"] != "ok"]
        message = f"{error}: {watching.prometheus.firing()} fire; doctor: {wrong}"
        raise AssertionError(message) from error


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_seen_by_doctor_metric_alert_and_page_and_clears_again(
    name: str, watching: Watched, page: httpx.Client, stack: Stack
) -> None:
    """The test waits for conditions; how long each took is printed, and promtool holds the rules to a minute."""
    fault, asking = FAULTS[name], watching.prometheus
    wait_calm(watching, "nothing else is wrong")
    assert asking.query(fault.metric) == {}
    wait_until(lambda: not shows(page, fault.part), "the page has nothing against it")
    with fault.lasts(watching, stack):
        began = time.monotonic()
        wait_until(lambda: asking.query(fault.metric), f"a metric shows it: {fault.metric}")
        shown = time.monotonic() - began
        wait_until(lambda: watching.has_fired(*fault.alerts), f"{fault.alerts} fire")
        fired = time.monotonic() - began
        wait_until(lambda: shows(page, fault.part), f"the page says that {fault.part} fails")
        seen = [found for found in findings(watching) if found["part"] == fault.part and found["verdict"] != "ok"]
        assert any(fault.says in found["seen"] for found in seen), seen
        assert all(found["advice"] for found in seen), seen
    ended = time.monotonic()
    wait_until(lambda: asking.query(fault.metric) == {}, "the metric is as before")
    wait_until(lambda: not shows(page, fault.part), "so is the page")
    wait_calm(watching, "every alert has cleared")
    cleared = time.monotonic() - ended
    print(f"{name}: in a metric after {shown:.0f} s, alerts after {fired:.0f} s, cleared after {cleared:.0f} s")  # noqa: T201
    wait_until(lambda: not any(found["verdict"] == "fail" for found in findings(watching)), "doctor finds no failure")
