"""What the tests of Flower share: its configuration, a worker that it watches, and every address that it answers."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

import billing
from billing.embedded.server import free_port
from tests.fleet.harness import Fleet
from tests.waiting import wait_until

CONFIGURATION = Path(billing.__file__).parent / "observability" / "flower" / "config.py"
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


@contextlib.contextmanager
def flower_of(
    fleet: Fleet,
    name: str,
    *options: str,
    environment: Mapping[str, str] | None = None,
    app: str | None = None,
    prefix: str = "",
) -> Iterator[httpx.Client]:
    """Run a Flower before a fleet, or an app of its own, and yield what asks it."""
    port = free_port()
    place = (f"--port={port}", f"--conf={CONFIGURATION}", "--inspect_timeout=5000", *options)
    child = fleet._run(name, "celery", "-A", app or fleet.module, "flower", *place, environment=environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as http:
            wait_for_answer(http, prefix)
            yield http
    finally:
        child.stop(20)


def wait_for_answer(http: httpx.Client, prefix: str = "") -> None:
    def answers() -> bool:
        try:
            return http.get(f"{prefix}/healthcheck").status_code == 200
        except httpx.TransportError:
            return False

    wait_until(answers, "Flower answers")


def billing_of(row: dict[str, Any]) -> tuple[Any, ...]:
    names = ("state", "billing_client", "billing_sku", "billing_charged", "billing_reserved", "billing_outcome")
    return tuple(row[name] for name in names)


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
