"""Whatever a worker's event says, Flower keeps no argument, no result and no error's text of it, and goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator

from billing.observability.flower.tasks import BilledTask, without_contents
from tests.fuzz.laws import SECRET, as_json, hold
from tests.fuzz.target import Target

_HIDDEN = ("args", "kwargs", "result", "traceback")


def check(data: bytes) -> None:
    """Feed a task the events that bytes spell: a list of [type, fields]."""
    found = as_json(data)
    task = BilledTask(uuid="task-1")
    for each in found[:10] if isinstance(found, list) else ():
        if not (isinstance(each, list) and len(each) == 2 and isinstance(each[1], dict)):
            continue
        kind, fields = str(each[0]), {str(name): value for name, value in each[1].items()}
        kept = without_contents(fields)
        hold(that=not any(name in kept for name in _HIDDEN), but=kept)
        hold(
            that=SECRET not in str(kept.get("exception")).partition("(")[0] or "(" in str(fields["exception"]), but=kept
        )
        if kind in {"sent", "received", "started", "succeeded", "failed", "retried", "revoked", "rejected", "billed"}:
            # Celery's State sets a timestamp on every event, and its names are Celery's.
            task.event(kind, 5.0, 6.0, fields)
    for name in _HIDDEN:
        hold(that=getattr(task, name, None) is None, but=(name, getattr(task, name, None)))


def seeds() -> Iterator[bytes]:
    """Yield the life of a task, and of one that failed."""
    billed = {"billing_client": "acme", "billing_sku": "page", "billing_charged": 5, "billing_outcome": "charged"}
    yield json.dumps([["received", {"name": "x", "args": SECRET, "kwargs": "{}"}], ["billed", billed]]).encode()
    yield json.dumps([["failed", {"exception": f"ValueError('{SECRET}')", "traceback": SECRET}]]).encode()
    yield json.dumps([["succeeded", {"result": SECRET, "runtime": 0.5}], ["retried", {"exception": SECRET}]]).encode()


TARGET = Target(check=check, seeds=seeds, words=(b'"exception":', b'"args":', b'"billing_charged":', b'["failed",{'))
