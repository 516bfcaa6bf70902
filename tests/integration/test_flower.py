"""A real Flower before real workers: what was charged is shown, what a task was given is not."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import billing
from billing.embedded.server import free_port
from billing.observability.flower_tasks import COLUMNS
from tests.fleet.harness import Fleet
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CONFIGURATION = Path(billing.__file__).with_name("observability") / "flower_config.py"
MARKER = "marker-of-an-argument"
QUEUE = "watched"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watched:
    """A fleet with a worker that sends events, and the Flower that looks at it."""

    fleet: Fleet
    http: httpx.Client

    def send(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Submit a task to the worker that sends events."""
        return self.fleet.app.tasks[name].apply_async(args, kwargs, queue=QUEUE)

    def listed(self, **query: Any) -> dict[str, dict[str, Any]]:
        """Return what the page of tasks asks the server for, by task id."""
        parameters = {"draw": 1, "start": 0, "length": 100, "order[0][column]": 0, "columns[0][data]": "name", **query}
        answer = self.http.get("/tasks/datatable", params=parameters)
        assert answer.status_code == 200, answer.text
        return {row["uuid"]: row for row in answer.json()["data"]}

    def wait_for(self, task_id: str, outcome: str | None) -> dict[str, Any]:
        """Wait until a task has ended and its billing is known, and return its row."""

        def known() -> bool:
            row = self.listed().get(task_id, {})
            return row.get("state") in ("SUCCESS", "FAILURE") and row.get("billing_outcome") == outcome

        wait_until(known, f"{task_id} is listed as {outcome}: {self.listed().get(task_id)}")
        return self.listed()[task_id]


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


def wait_for_answer(http: httpx.Client) -> None:
    def answers() -> bool:
        try:
            return http.get("/healthcheck").status_code == 200
        except httpx.TransportError:
            return False

    wait_until(answers, "Flower answers")


def billing_of(row: dict[str, Any]) -> tuple[Any, ...]:
    names = ("state", "billing_client", "billing_sku", "billing_charged", "billing_reserved", "billing_outcome")
    return tuple(row[name] for name in names)


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


def addresses(task_ids: list[str], worker: str) -> list[str]:
    """Return every address of Flower that answers a GET."""
    of_all = ["/", "/workers", "/workers?json=1&refresh=1", "/tasks", "/broker", "/metrics", "/healthcheck"]
    of_api = ["/api/workers", "/api/workers?refresh=1", f"/api/workers?refresh=1&workername={worker}"]
    of_api += ["/api/tasks", "/api/task/types", "/api/queues/length"]
    datatable = "/tasks/datatable?draw=1&start=0&length=100&order[0][column]=0&columns[0][data]=name"
    # The worker's page and answer are read twice: the first time Flower asks the worker.
    of_worker = [f"/worker/{worker}", f"/worker/{worker}?limit=50", f"/api/workers?workername={worker}"]
    of_tasks = [f"/{page}/{task_id}" for page in ("task", "api/task/info", "api/task/result") for task_id in task_ids]
    return [*of_all, datatable, *of_api, *of_worker, *of_tasks]


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


OPEN = [
    pytest.param(("--address=0.0.0.0",), {}, "0.0.0.0", id="command line"),  # noqa: S104 - it is to be refused
    pytest.param(("--address=::",), {}, "::", id="IPv6"),
    pytest.param(("--address=",), {}, "", id="every address"),
    pytest.param(("--address=flower.example",), {}, "flower.example", id="a name"),
    pytest.param((), {"FLOWER_ADDRESS": "0.0.0.0"}, "0.0.0.0", id="environment"),  # noqa: S104
    pytest.param((), {"FLOWER_ADDRESS": ""}, "", id="empty environment"),
    pytest.param(("--address=0.0.0.0",), {"FLOWER_BASIC_AUTH": ""}, "0.0.0.0", id="empty password"),  # noqa: S104
]


@pytest.mark.parametrize(("options", "environment", "address"), OPEN)
def test_another_address_without_authentication_is_refused(
    running_fleet: Fleet, options: tuple[str, ...], environment: dict[str, str], address: str
) -> None:
    """One line, and an exit code that is not 0."""
    assert ended(running_fleet, CONFIGURATION, options, environment) == (1, refusal(address))


def test_a_line_of_the_file_itself_is_refused_too(running_fleet: Fleet, tmp_path: Path) -> None:
    own = tmp_path / "flowerconfig.py"
    own.write_text(f"{CONFIGURATION.read_text()}\naddress = '0.0.0.0'\n")

    assert ended(running_fleet, own, (), {}) == (1, refusal("0.0.0.0"))  # noqa: S104


def refusal(address: str) -> list[str]:
    rule = (
        "is not loopback, and Flower shows the work of every client: give it authentication (--basic_auth, or --auth "
        "with --auth_provider), or listen on 127.0.0.1 or --unix_socket"
    )
    return [f"billing: address: {address!r}: {rule}"]


def ended(
    fleet: Fleet, configuration: Path, options: tuple[str, ...], environment: dict[str, str]
) -> tuple[int | None, list[str]]:
    """Run a Flower that ends by itself; return its exit code and what it said."""
    name = f"refused-{free_port()}"
    child = fleet._spawn(
        name, "flower", f"--conf={configuration}", f"--port={free_port()}", *options, environment=environment
    )
    wait_until(lambda: not child.running, "Flower ended")
    return child.returncode, (fleet.directory / f"{name}.log").read_text().splitlines()


def test_with_authentication_it_listens_where_it_is_told(running_fleet: Fleet) -> None:
    port = free_port()
    place = (f"--conf={CONFIGURATION}", f"--port={port}", "--address=0.0.0.0")
    running_fleet._spawn("guarded", "flower", *place, environment={"FLOWER_BASIC_AUTH": "operator:secret"})

    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as http:
        wait_for_answer(http)
        assert http.get("/tasks").status_code == 401
        assert http.get("/api/tasks").status_code == 401
        assert http.get("/api/task/result/none").status_code == 401
        assert http.get("/tasks", auth=("operator", "secret")).status_code == 200


def test_a_unix_socket_needs_no_authentication(running_fleet: Fleet) -> None:
    path = running_fleet.directory / "flower.socket"
    running_fleet._spawn("local", "flower", f"--conf={CONFIGURATION}", f"--unix_socket={path}", "--address=")

    wait_until(path.exists, "the socket is there")
    transport = httpx.HTTPTransport(uds=os.fspath(path))
    with httpx.Client(base_url="http://localhost", transport=transport, timeout=120) as http:
        assert http.get("/tasks").status_code == 200


def test_another_version_of_flower_starts_as_it_is_and_says_so(running_fleet: Fleet, tmp_path: Path) -> None:
    own = tmp_path / "flowerconfig.py"
    own.write_text(f"import flower as installed\ninstalled.__version__ = '3.0.1'\n{CONFIGURATION.read_text()}")
    port = free_port()
    running_fleet._spawn("newer", "flower", f"--conf={own}", f"--port={port}")

    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as http:
        wait_for_answer(http)
        page = http.get("/tasks").text
    assert 'data-column="uuid"' in page
    assert "billing_client" not in page
    log = (running_fleet.directory / "newer.log").read_text()
    assert log.count("billing: Flower 3.0.1 starts without billing's columns") == 1
