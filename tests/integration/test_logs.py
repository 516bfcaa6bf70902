"""The log of real processes: one line for each change, its ids on it, and no secret or argument in any line."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest

from billing import InsufficientCredits, admin
from billing.embedded.process import Child
from tests.fleet.harness import Fleet
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

ARGUMENT = "planted-argument"
STRIPE_KEY = "sk_test_planted00stripe00key"
PASSWORD = "planted-password"
TOKEN = "planted-token-of-a-url"
DEBUG = ("-l", "DEBUG")
FORGED = "nobody\nbilling: charged run_id=1"
RETRIED = ["reserved", "kept", "taken_over", "charged"]


@pytest.fixture
def fleet_settings() -> dict[str, str]:
    """Have everything written as JSON, and webhooks given up at their second call."""
    return {
        "BILLING_LOG_FORMAT": "json",
        "BILLING_WEBHOOK_ATTEMPTS_MAX": "1",
        "BILLING_STRIPE_API_KEY": STRIPE_KEY,
        # No test calls Stripe: what would goes here, where nobody is.
        "HTTPS_PROXY": f"http://proxy:{PASSWORD}@127.0.0.1:1",
        "BILLING_EXHAUSTED_WAIT_MAX_SECONDS": "0",
    }


def printed(fleet: Fleet) -> str:
    """Return all that the fleet's processes have printed."""
    return "".join(path.read_text(errors="replace") for path in sorted(fleet.directory.glob("*.log")))


def records(fleet: Fleet) -> list[dict[str, Any]]:
    """Return what was logged, one object for each line that is one."""
    return [json.loads(line) for line in printed(fleet).splitlines() if line.startswith('{"')]


def changes(fleet: Fleet, logger: str, **ids: object) -> list[str]:
    """Return the changes that a logger told of something, in their order in each process."""
    mine = (one for one in records(fleet) if one["logger"] == logger and "change" in one)
    return [one["change"] for one in mine if all(one.get(name) == value for name, value in ids.items())]


def fulfillment(fleet: Fleet, name: str = "consumer", **environment: str) -> Child:
    """Start a fulfillment worker that says all it can."""
    options = ("--fulfillment", "-P", "solo", "-n", f"{name}@test", *DEBUG)
    return fleet._spawn(name, "worker", *options, environment=environment)


def work(fleet: Fleet) -> dict[str, str]:
    """Have runs end in every way; return their task ids. acme is out of credits then, in-debt owes 30."""
    fleet.client("acme", 100)
    fleet.client("in-debt", 20)
    sent = {"charged": fleet.send("metered", "acme", 3, 2)}
    sent["charged"].get(timeout=120)
    sent["failed"] = fleet.send("fails", "acme")
    with pytest.raises(ValueError, match="acme"):
        sent["failed"].get(timeout=120)
    sent["retried"] = fleet.send("retries", "acme", 1)
    sent["retried"].get(timeout=120)
    for _ in range(7):
        fleet.send("metered", "acme", 1, None).get(timeout=120)
    sent["refused"] = fleet.send("ok", "acme", ARGUMENT)
    with pytest.raises(InsufficientCredits):
        sent["refused"].get(timeout=120)
    # From a sender without the library, which would refuse it itself.
    sent["forged"] = fleet.app.send_task("ok", [FORGED, ARGUMENT], queue="tasks")
    with pytest.raises(Exception, match="nobody"):
        sent["forged"].get(timeout=120)
    fleet.send("metered", "in-debt", 2, 5).get(timeout=120)
    return {name: result.id for name, result in sent.items()}


def test_each_change_is_one_line_and_no_line_has_a_secret_or_an_argument(fleet: Fleet) -> None:
    """Given a fleet at DEBUG that charges, refuses, fails, cannot reach a webhook, Stripe or PostgreSQL.

    Then each run has a line for each of its changes, with its ids, and everything that was printed has no key,
    no password, no webhook's secret or URL; what billing logged has no argument of a task.
    """
    fulfillment(fleet)
    fleet.start("worker", children=2, options=DEBUG)
    for name in ("consumer", "worker"):
        fleet_is_ready(fleet, name)
    admin.add_client(fleet.settings, "acme")
    _, secret = admin.set_webhook(fleet.settings, "acme", f"http://127.0.0.1:1/{TOKEN}")
    assert secret is not None
    ids = work(fleet)
    fulfillment(fleet, "astray", BILLING_DATABASE_URL=f"postgresql://billing:{PASSWORD}@127.0.0.1:1/billing")
    fleet.app.send_task("billing.stripe.errors", queue="billing.maintenance")
    wait_until(lambda: changes(fleet, "billing.alerts", client_id="acme").count("failed") == 2, "the webhook failed")
    wait_until(lambda: "does not answer" in text_of(fleet, "astray"), "no database")
    wait_until(lambda: "the report to Stripe stopped" in text_of(fleet, "consumer"), "Stripe is not reached")
    fleet.wait_for_rows(10)
    fleet.stop()

    runs = {name: changes(fleet, "billing.runs", task_id=task_id) for name, task_id in ids.items()}
    assert runs.pop("retried") in (RETRIED, RETRIED[2:] + RETRIED[:2]), "its attempts may be two processes'"
    assert runs == {
        "charged": ["reserved", "charged"],
        "failed": ["reserved", "released"],
        "refused": ["refused"],
        "forged": ["refused"],
    }
    assert changes(fleet, "billing.alerts", client_id="in-debt", kind="debt") == ["announced"]
    line = one(fleet, task_id=ids["charged"], change="charged")
    assert (line["client_id"], line["sku"], line["credits"], line["attempt"]) == ("acme", "unit", 20, 1)
    assert re.fullmatch(r"[0-9a-f-]{36}", line["run_id"])
    line = one(fleet, debt=30)
    assert (line["client_id"], line["level"]) == ("in-debt", "WARNING")
    line = one(fleet, task_id=ids["refused"], change="refused")
    assert (line["reason"], line["required"], line["available"]) == ("InsufficientCredits", 10, 0)

    everything = printed(fleet)
    password = urlsplit(fleet.settings.broker_url).password or "guest"
    secrets = [STRIPE_KEY, PASSWORD, TOKEN, secret.removeprefix("whsec_"), *([password] if password != "guest" else [])]
    assert [line for line in everything.splitlines() if any(planted in line for planted in secrets)] == []
    ours = [json.dumps(record) for record in records(fleet) if record["logger"].startswith("billing")]
    assert len(ours) > 20
    assert [line for line in ours if ARGUMENT in line] == []
    # Celery's records of a task have its arguments beside their text.
    assert [record for record in records(fleet) if ARGUMENT in str(record.get("data"))] == []
    assert [line for line in everything.splitlines() if ARGUMENT in line and '"level": "INFO"' in line] == []
    assert not re.search(r"^billing: charged run_id=1", everything, re.MULTILINE)


def fleet_is_ready(fleet: Fleet, name: str) -> None:
    """Wait until a process says that it is ready."""
    wait_until(lambda: "ready." in text_of(fleet, name), f"{name} is ready")


def text_of(fleet: Fleet, name: str) -> str:
    """Return what a process has printed."""
    return (fleet.directory / f"{name}.log").read_text(errors="replace")


def one(fleet: Fleet, **fields: object) -> dict[str, Any]:
    """Return the one record that has these fields."""
    (found,) = [each for each in records(fleet) if all(each.get(name) == value for name, value in fields.items())]
    return found
