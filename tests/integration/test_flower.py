"""A real Flower before real workers: what was charged is shown, what a task was given is not."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from billing.embedded.server import free_port
from billing.observability.flower.tasks import COLUMNS
from tests.fleet.harness import Fleet
from tests.integration.watching import CONFIGURATION, QUEUE, Watched, addresses, billing_of, wait_for_answer
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

MARKER = "marker-of-an-argument"


@pytest.fixture(scope="module")
def watched(running_fleet: Fleet) -> Iterator[Watched]:
    """Start a worker with `-E` and a Flower."""
    fleet = running_fleet
    port = free_port()
    place = (f"--port={port}", f"--conf={CONFIGURATION}", "--inspect_timeout=5000")
    fleet._spawn("flower", "flower", *place, environment={"FLOWER_UNAUTHENTICATED_API": "true"})
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as http:
        wait_for_answer(http)
        # Flower listens to the broker before anything that it must see is said.
        fleet.worker("watched", options=("-E", "-Q", QUEUE))
        wait_until(lambda: "watched@test" in http.get("/workers?json=1").text, "Flower sees the worker")
        yield Watched(fleet=fleet, http=http)


def test_the_list_says_who_pays_for_what_and_how_much(watched: Watched) -> None:
    """Charged, charged less than was held, on two SKUs, refused, released and unbilled; the states are Celery's own."""
    rich, poor = watched.fleet.client("rich", 1_000), watched.fleet.client("poor", 5)

    charged = watched.send("ok", rich).id
    less = watched.send("metered", rich, 5, 2).id
    two = watched.send("lines", rich, 2).id
    refused = watched.send("ok", poor).id
    unknown = watched.send("ok", "nobody").id
    released = watched.send("fails", rich).id
    unbilled = watched.send("free").id

    assert billing_of(watched.wait_for(charged, "charged")) == ("SUCCESS", "rich", "unit", 10, 10, "charged")
    assert billing_of(watched.wait_for(less, "charged")) == ("SUCCESS", "rich", "unit", 20, 50, "charged")
    assert billing_of(watched.wait_for(two, "charged")) == ("SUCCESS", "rich", "unit +1", 16, 22, "charged")
    assert billing_of(watched.wait_for(refused, "refused")) == ("FAILURE", "poor", "unit", 0, 0, "refused")
    assert billing_of(watched.wait_for(unknown, "refused")) == ("FAILURE", "nobody", "unit", 0, 0, "refused")
    assert billing_of(watched.wait_for(released, "released")) == ("FAILURE", "rich", "unit", 0, 10, "released")
    assert billing_of(watched.wait_for(unbilled, None)) == ("SUCCESS", None, None, None, None, None)
    assert watched.listed()[refused]["exception"] == "InsufficientCredits"
    assert watched.listed()[charged]["worker"] == "watched@test"


def test_the_list_is_searched_by_client_and_sorted_by_credits(watched: Watched) -> None:
    watched.fleet.client("sorted", 1_000)
    ids = [watched.send("metered", "sorted", 20, used).id for used in (10, 2, 1)]
    for task_id in ids:
        watched.wait_for(task_id, "charged")

    found = watched.listed(
        **{"search[value]": "sorted", "columns[0][data]": "billing_charged", "order[0][dir]": "desc"},
    )

    assert [(task_id, row["billing_charged"]) for task_id, row in found.items()] == list(
        zip(ids, (100, 20, 10), strict=True)
    )


def test_a_retry_is_announced_once_when_it_is_charged(watched: Watched) -> None:
    watched.fleet.client("again", 100)

    task_id = watched.send("retries", "again", 2).id

    assert billing_of(watched.wait_for(task_id, "charged")) == ("SUCCESS", "again", "unit", 10, 10, "charged")
    counted = [
        line.rpartition(" ")[2]
        for line in watched.http.get("/metrics").text.splitlines()
        if line.startswith("flower_events_total") and 'task="retries"' in line and 'type="task-billed"' in line
    ]
    assert counted == ["1.0"]


def test_columns_and_details_are_on_the_pages(watched: Watched) -> None:
    watched.fleet.client("seen", 100)
    task_id = watched.send("ok", "seen").id
    watched.wait_for(task_id, "charged")

    tasks, task = watched.http.get("/tasks").text, watched.http.get(f"/task/{task_id}").text

    positions = [tasks.index(f'<th data-column="{column}">') for column in COLUMNS]
    assert positions == sorted(positions)
    for heading in ("Client", "SKU", "Credits", "Outcome"):
        assert f">{heading}</th>" in tasks
    for heading in ("Billing client", "Billing sku", "Billing charged", "Billing reserved", "Billing outcome"):
        assert f"<dt>{heading}</dt>" in task
    assert task.count("not shown") == 3


def test_nothing_that_a_task_was_given_or_returned_is_in_any_answer(watched: Watched) -> None:
    """As argument, keyword, result, text of an error, of tasks that ended, run and wait: every address of Flower."""
    client = watched.fleet.client("private", 1_000)
    ended = [
        watched.send("ok", client, MARKER).id,  # an argument, and the result
        watched.send("ok", client, value=MARKER).id,
        watched.send("metered", client, MARKER, None).id,  # refused with a text that quotes the argument
    ]
    for task_id, outcome in zip(ended, ("charged", "charged", "refused"), strict=True):
        watched.wait_for(task_id, outcome)
    later = watched.fleet.app.tasks["ok"].apply_async((client, MARKER), queue=QUEUE, countdown=3_600).id
    inspect = watched.fleet.app.control.inspect(destination=["watched@test"], timeout=60)
    wait_until(lambda: (inspect.scheduled() or {}).get("watched@test"), "one waits")
    running = [watched.send("gated", client, MARKER).id for _ in range(2)]
    wait_until(lambda: len((inspect.active() or {}).get("watched@test", [])) == 2, "both run")
    wait_until(lambda: {*running, later} <= watched.listed().keys(), "Flower knows all of them")
    try:
        # Workers do say it; that Flower does not is its configuration's doing.
        assert MARKER in json.dumps([inspect.active(), inspect.scheduled()])

        answers = {
            path: watched.http.get(path, follow_redirects=True)
            for path in addresses([*ended, *running, later], "watched@test")
        }
    finally:
        (watched.fleet.directory / MARKER).touch()

    assert [path for path, answer in answers.items() if MARKER in answer.text] == []
    refused = {path for path, answer in answers.items() if answer.status_code == 403}
    assert refused == {f"/api/task/result/{task_id}" for task_id in (*ended, *running, later)}
    assert {answer.status_code for path, answer in answers.items() if path not in refused} == {200}
    for query in (MARKER, f"args:{MARKER}", f"kwargs:{MARKER}", f"kwargs:value={MARKER}", f"result:{MARKER}"):
        assert watched.listed(**{"search[value]": query}) == {}, query
        assert watched.http.get("/api/tasks", params={"search": query}).json() == {}, query


def test_nothing_can_be_changed_unless_flower_is_told_so(watched: Watched) -> None:
    answers = [
        watched.http.post("/api/task/async-apply/ok", json={"args": ["rich"]}),
        watched.http.post("/api/worker/shutdown/watched@test"),
    ]

    assert [answer.status_code for answer in answers] == [403, 403]


def test_a_task_that_is_run_from_flower_shows_no_result(watched: Watched) -> None:
    """Also where actions are allowed: neither what it returned, nor the text of its error."""
    client = watched.fleet.client("asked", 100)
    port = free_port()
    place = (f"--conf={CONFIGURATION}", f"--port={port}", "--read_only=False")
    watched.fleet._spawn("acting", "flower", *place, environment={"FLOWER_UNAUTHENTICATED_API": "true"})

    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as http:
        wait_for_answer(http)
        answers = [
            http.post(f"/api/task/apply/{task}", json={"args": [client, MARKER, *more], "queue": QUEUE}).text
            for task, more in (("ok", ()), ("metered", (None,)))
        ]

    assert [(json.loads(answer)["state"], json.loads(answer)["result"]) for answer in answers] == [
        ("SUCCESS", "not shown"),
        ("FAILURE", "not shown"),
    ]
    assert MARKER not in "".join(answers)


def test_its_metrics_have_those_of_the_fleet_beside_its_own_and_name_no_client(watched: Watched) -> None:
    """Prometheus reads one page: what Flower counts, and how the fleet's servers, holds and queues stand."""
    client = watched.fleet.client("metered-client", 1_000)
    watched.wait_for(watched.send("ok", client).id, "charged")

    def found() -> str:
        answer = watched.http.get("/metrics")
        assert answer.status_code == 200
        return answer.text

    wait_until(lambda: 'billing_server_up{server="Redis"} 1.0' in found(), "the fleet is read")
    wait_until(lambda: "\nbilling_held_credits 0.0" in found(), "so are its holds")
    text = found()
    assert "\nflower_events_total" in text
    assert 'billing_queue_consumers{queue="0"} 1.0' in text
    fleet = [line for line in text.splitlines() if line.startswith("billing_")]
    assert not [line for line in fleet if "metered-client" in line]
