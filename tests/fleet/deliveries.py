"""Tasks that wait for credits, and what each delivery of them says of itself, also where its body does not run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import celery
import kombu
from celery import signals

from billing import BillableTask
from billing.task.waits import LEVELS, queue_name
from tests.fleet.tasks import SKU, note, noted

#: What a delivery that comes back says as the first one did. Its ETA is over, and counts of waits come and go.
_SAME = (
    "id",
    "root_id",
    "parent_id",
    "group",
    "group_index",
    "chord",
    "callbacks",
    "errbacks",
    "chain",
    "retries",
    "expires",
    "timelimit",
    "reply_to",
    "correlation_id",
    "origin",
    "shadow",
    "argsrepr",
    "kwargsrepr",
    "ignore_result",
    "replaced_task_nesting",
    "stamped_headers",
    "stamps",
    "args",
    "kwargs",
)
_PROPERTIES = ("priority", "delivery_mode", "content_type", "content_encoding", "reply_to", "correlation_id")


def add_tasks(app: celery.Celery, directory: Path) -> None:
    """Add the tasks, and note each delivery of them under its id, before billing's gate."""

    @app.task(shared=False, name="patient", base=BillableTask, sku=SKU, on_exhausted="retry")
    def patient(client_id: str, value: int = 0) -> int:
        note(directory, f"ran.{client_id}", str(value))
        return value

    @app.task(
        shared=False, name="patient_retries", bind=True, base=BillableTask, sku=SKU, on_exhausted="retry", max_retries=1
    )
    def patient_retries(self: BillableTask, client_id: str) -> int:
        note(directory, f"ran.{client_id}", json.dumps(self.request.headers))
        if self.request.retries == 0:
            raise self.retry(countdown=0)
        return self.request.retries

    @app.task(shared=False, name="sum_up")
    def sum_up(values: list[int], client_id: str) -> int:
        note(directory, f"summed.{client_id}")
        return sum(values)

    @signals.task_prerun.connect(weak=False, dispatch_uid="tests.deliveries")
    def told(task: Any = None, task_id: str = "", **_: Any) -> None:
        if task.name.startswith("patient"):
            note(directory, f"delivery.{task_id}", json.dumps(_told(task.request)))


def deliveries(directory: Path, task_id: str) -> list[dict[str, Any]]:
    """Return what each delivery of a task said of itself, the first one first."""
    return [json.loads(line) for line in noted(directory, f"delivery.{task_id}")]


def waiting(url: str, queue: str) -> int:
    """Return how many deliveries of a queue wait."""
    return sum(ready(url, *(queue_name("", queue, level) for level in LEVELS)))


def ready(url: str, *queues: str) -> list[int]:
    """Return how many messages are ready in each queue; none also when there is no such queue."""
    with kombu.Connection(url) as connection:
        return [_ready(connection, queue) for queue in queues]


def _ready(connection: kombu.Connection, queue: str) -> int:
    channel: Any = connection.channel()
    try:
        return int(channel.queue_declare(queue, passive=True).message_count)
    except connection.channel_errors:
        return 0


def _told(request: Any) -> dict[str, Any]:
    headers = request.headers or {}
    counts = ("billing_waits", "billing_exhausted_waits", "billing_exhausted_since")
    own = {name: value for name, value in headers.items() if name not in counts and not name.startswith("x-")}
    info = request.delivery_info
    return {
        **{name: getattr(request, name, None) for name in _SAME},
        **{f"property {name}": request.properties.get(name) for name in _PROPERTIES},
        "headers": own,
        "sent to": [info["exchange"], info["routing_key"]],
        "counts": [headers.get(name, 0) for name in counts[:2]],
        "eta": request.eta,
    }
