"""`billing explain` on tasks of fleets of their own: killed with their worker, waiting for credits, parked."""

from __future__ import annotations

import pytest

from billing import admin
from tests.fleet.harness import Fleet
from tests.fleet.tasks import noted
from tests.integration.explaining import story_of, told, whats
from tests.integration.parking import PARKING, wait_parked
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def fleet_settings(request: pytest.FixtureRequest) -> dict[str, str]:
    """Further settings of the fleet, as the test gives them."""
    return dict(getattr(request, "param", {}))


def test_the_story_of_a_killed_task_says_that_its_hold_expired(fleet: Fleet) -> None:
    """Given a worker that is killed with no other there, when the lease is over, then the credits are back (L5)."""
    client = fleet.client("acme", 100)
    fleet.consumer(wait=False)
    worker = fleet.worker(children=1, pool="solo")
    result = fleet.send("gated", client, "gate")
    wait_until(lambda: noted(fleet.directory, "gate.started"), "the task runs")
    told(fleet, result.id, "running: 10 credits are held")
    worker.kill()
    story = told(fleet, result.id, "killed, and is not charged: its hold expired and 10 credits went back")
    assert whats(story) == ["submitted", "expired"]
    assert fleet.balance(client).available == 100


@pytest.mark.parametrize("fleet_settings", [{"BILLING_ON_EXHAUSTED": "retry"}], indirect=True)
def test_the_story_of_a_task_that_waits_for_credits_counts_its_waits(fleet: Fleet) -> None:
    client = fleet.client("acme", 9)
    fleet.consumer(wait=False)
    fleet.worker()
    result = fleet.send("ok", client)
    told(fleet, result.id, "waiting in the broker to be tried again: client 'acme' has 9 of the 10 credits")
    wait_until(lambda: whats(story_of(fleet, result.id)).count("put off") >= 2, "it waits again")
    assert "wait 2" in [step for step in story_of(fleet, result.id).steps if step.what == "put off"][1].detail
    admin.grant(fleet.settings, client, 1, key="more")
    assert result.get(timeout=60) == 0
    assert "put off" in whats(told(fleet, result.id, "charged 10 credits, not reported"))


@pytest.mark.parametrize("fleet_settings", [PARKING], indirect=True)
def test_the_story_of_a_parked_task_says_what_it_waits_for(fleet: Fleet) -> None:
    client = fleet.client("acme", 9)
    fleet.consumer(wait=False)
    fleet.worker()
    result = fleet.send("ok", client)
    wait_parked(fleet, client, 1)
    story = told(fleet, result.id, "parked: client 'acme' had 9 of the 10 credits that it needs")
    assert story.client_id == client
    admin.grant(fleet.settings, client, 1, key="more")
    assert result.get(timeout=60) == 0
    assert {"parked", "unparked", "logged"} <= set(whats(told(fleet, result.id, "charged 10 credits, not reported")))
