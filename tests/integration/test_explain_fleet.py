"""`billing explain` on tasks of a real fleet: each story says in one sentence what happened, and where the money is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from billing import InsufficientCredits, admin
from tests.fleet.harness import Fleet
from tests.fleet.tasks import noted
from tests.integration.explaining import story_of, told, whats
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


def test_the_story_of_a_success_leads_from_its_submission_to_its_rollup(running_fleet: Fleet) -> None:
    fleet, client = running_fleet, running_fleet.client("explained", 100)
    result = fleet.send("metered", client, 5, 3)
    assert result.get(timeout=60) == 5
    story = told(fleet, result.id, "charged 30 credits, not reported", app=fleet.app)
    assert story.is_complete
    assert story.client_id == client
    assert [what for what in whats(story) if what != "result"] == [
        "submitted",
        "settled",
        "paid",
        "logged",
        "rolled up",
    ]
    assert whats(story).count("result") == 1
    again = story_of(fleet, str(story.run_ids[0]), app=fleet.app)
    assert (again.verdict, again.steps) == (story.verdict, story.steps)


def test_the_story_of_a_refusal_names_client_required_and_available(running_fleet: Fleet) -> None:
    fleet, client = running_fleet, running_fleet.client("refused-one", 9)
    result = fleet.send("ok", client)
    with pytest.raises(InsufficientCredits):
        result.get(timeout=60)
    story = told(fleet, result.id, "refused: client 'refused-one' has 9 of the 10 credits")
    assert story.client_id == client
    assert whats(story) == ["submitted", "refused"]
    assert "result" in whats(story_of(fleet, result.id, app=fleet.app))


@pytest.mark.parametrize(
    ("task", "client", "why"),
    [
        ("ok", "nobody-there", "client_id: 'nobody-there': is not a known client"),
        ("ok", "two words", "client_id: 'two words': must be 1 to 128 printable characters without spaces"),
        ("ok", None, "client_id: None: task ok (SKU 'unit') has no client"),
        ("unpriced", "suspended-one", "sku: 'nothing': has no price in effect"),
        ("ok", "suspended-one", "client 'suspended-one' is suspended; nothing was started"),
    ],
)
def test_every_refusal_leaves_its_reason(running_fleet: Fleet, task: str, client: Any, why: str) -> None:
    fleet = running_fleet
    if client == "suspended-one":
        fleet.client(client, 100)
        admin.set_client_state(fleet.settings, client, "suspended", reason="unpaid")
    # By name, as a sender without the task does: nothing is refused before it is sent.
    result = fleet.app.send_task(task, (client,))
    with pytest.raises(Exception, match=r"client|sku"):
        result.get(timeout=60)
    story = told(fleet, result.id, f"refused: {why}")
    assert "refused" in whats(story)


def test_the_story_of_a_failure_says_that_its_credits_went_back(running_fleet: Fleet) -> None:
    fleet, client = running_fleet, running_fleet.client("failing", 100)
    result = fleet.send("fails", client)
    with pytest.raises(ValueError, match="failing"):
        result.get(timeout=60)
    told(fleet, result.id, "failed, and is not charged: its 10 credits went back (ValueError)")


def test_the_story_of_an_ignored_task_does_not_call_it_failed(running_fleet: Fleet) -> None:
    fleet, client = running_fleet, running_fleet.client("ignoring", 100)
    result = fleet.send("ignores", client)
    told(fleet, result.id, "not charged: it was ignored or replaced, and its 10 credits went back")
    result.forget()


def test_the_story_of_a_run_that_goes_on_says_what_is_held_and_until_when(running_fleet: Fleet) -> None:
    fleet, client = running_fleet, running_fleet.client("going-on", 100)
    result = fleet.send("gated", client, "going-on.gate")
    wait_until(lambda: noted(fleet.directory, "going-on.gate.started"), "the task runs")
    story = told(fleet, result.id, "running: 10 credits are held, its lease ends in")
    assert whats(story) == ["submitted", "reserved"]
    (Path(fleet.directory) / "going-on.gate").touch()
    result.get(timeout=60)


def test_two_submissions_of_one_id_are_two_runs(running_fleet: Fleet) -> None:
    fleet, client = running_fleet, running_fleet.client("twice", 10)
    first = fleet.app.tasks["ok"].apply_async((client,), task_id="the-same")
    first.get(timeout=60)
    fleet.wait_for_rows(1, client)
    fleet.app.tasks["ok"].apply_async((client,), task_id="the-same")
    told(fleet, "the-same", "2 runs: (1) charged 10 credits")
    wait_until(lambda: "(2) refused: client 'twice' has 0 of the 10" in story_of(fleet, "the-same").verdict, "both")
    assert len(story_of(fleet, "the-same").run_ids) == 2


def test_the_story_of_a_late_charge_says_so_and_who_paid(running_fleet: Fleet) -> None:
    """Given a run whose hold was taken from it, when it succeeds, then it is charged late (L4)."""
    fleet, client = running_fleet, running_fleet.client("late", 100)
    result = fleet.send("gated", client, "late.gate")
    wait_until(lambda: noted(fleet.directory, "late.gate.started"), "the task runs")
    (hold,) = fleet.holds(client)
    fleet.buckets.release(client, hold.run_id, hold.token)
    (fleet.directory / "late.gate").touch()
    result.get(timeout=60)
    story = told(fleet, result.id, "charged 10 credits late, not reported")
    assert "1 of unit = 10 credits, price book 2, attempt 1, late" in [step.detail for step in story.steps]


def test_the_story_of_a_retried_run_has_each_of_its_attempts(running_fleet: Fleet) -> None:
    fleet, client = running_fleet, running_fleet.client("again", 100)
    result = fleet.send("retries", client, 2)
    assert result.get(timeout=60) == 2
    told(fleet, result.id, "charged 10 credits, not reported")
    wait_until(lambda: whats(story_of(fleet, result.id)).count("retry") == 2, "both retries are noted")
    story = story_of(fleet, result.id)
    again = next(step.detail for step in story.steps if step.what == "retry")
    assert again.startswith("10 credits of unit, again in 0.1 s")
    assert "attempt 3" in next(step.detail for step in story.steps if step.what == "settled")
    assert len(story.run_ids) == 1


def test_the_story_of_a_redelivered_run_says_that_its_worker_died(running_fleet: Fleet) -> None:
    """Given a task whose process is killed by SIGKILL, when it is delivered again, then the story has both."""
    fleet, client = running_fleet, running_fleet.client("killed", 100)
    result = fleet.send("killed_once", client, "killed.once")
    assert result.get(timeout=60) == 2
    told(fleet, result.id, "charged 10 credits")
    wait_until(lambda: "delivered again" in whats(story_of(fleet, result.id)), "the takeover is noted")
