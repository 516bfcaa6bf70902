"""The tasks of the fleet under test. `make_app` makes the same app in a worker process and in the test itself.

Tasks that must meet the test half way do so through files in the directory `FLEET_DIRECTORY`: they note that they run,
and wait until the test lets them go on, so that no test depends on how long something takes.
"""

from __future__ import annotations

import functools
import hashlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import celery
from celery.exceptions import Ignore, Reject

import billing
from billing import BillableTask

SKU, OTHER_SKU = "unit", "extra"
#: How long a task waits for a gate; a test that keeps it closed for longer says so in the environment.
_WAIT_SECONDS = float(os.environ.get("FLEET_WAIT_SECONDS", "600"))


def make_app(environment: Mapping[str, str]) -> celery.Celery:
    """Return an app whose servers are those of `environment`."""
    app = celery.Celery("fleet", broker=environment["BILLING_BROKER_URL"], backend=environment["BILLING_RESULT_URL"])
    app.conf.update(
        {
            name.lower(): value
            for name, value in environment.items()
            # What chooses the servers under test is no setting of the fleet.
            if name.startswith("BILLING_") and not name.startswith("BILLING_EMBEDDED_")
        },
        task_default_queue="tasks",
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
        worker_cancel_long_running_tasks_on_connection_loss=True,
        task_publish_retry=True,
        # By default an event that a monitor has not read for five seconds is dropped, which a busy machine may need.
        event_queue_ttl=600.0,
        event_queue_expires=1_200.0,
    )
    app.set_default()
    billing.setup(app)
    directory = Path(environment["FLEET_DIRECTORY"])
    _plain(app, directory)
    _endings(app, directory)
    _hooks(app)
    return app


def dying(step: Callable[..., Any], order: Path) -> Callable[..., Any]:
    """Return a step before which the process dies by SIGKILL, once, if the file `order` is there."""

    @functools.wraps(step)
    def before(*args: Any) -> Any:
        try:
            order.unlink()
        except FileNotFoundError:
            return step(*args)
        return os.kill(os.getpid(), signal.SIGKILL)

    return before


def note(directory: Path, name: str, text: str = "") -> None:
    """Add a line to a file that the test reads."""
    with (directory / name).open("a") as file:
        file.write(f"{text or os.getpid()}\n")


def noted(directory: Path, name: str) -> list[str]:
    """Return the lines that tasks have added to a file."""
    path = directory / name
    return path.read_text().splitlines() if path.exists() else []


def wait_for_gate(directory: Path, name: str) -> None:
    """Wait until the test has opened a gate."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while not (directory / name).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(name)
        time.sleep(0.01)


def _plain(app: celery.Celery, directory: Path) -> None:
    @app.task(shared=False, name="ok", base=BillableTask, sku=SKU)
    def ok(client_id: str, value: int = 0) -> int:
        return value

    @app.task(
        shared=False, name="metered", bind=True, base=BillableTask, sku=SKU, quantity=lambda client_id, most, used: most
    )
    def metered(self: BillableTask, client_id: str, most: int, used: int | None) -> int:
        if used is not None:
            self.usage.record(quantity=used)
        return most

    @app.task(shared=False, name="lines", base=BillableTask, sku=SKU, reserve={OTHER_SKU: 4})
    def lines(client_id: str, extra: int) -> int:
        billing.usage.record(extra, sku=OTHER_SKU)
        return extra

    @app.task(shared=False, name="works", base=BillableTask, sku=SKU)
    def works(client_id: str) -> str:
        # Real work of some milliseconds, so that a kill hits a running task.
        return hashlib.pbkdf2_hmac("sha256", client_id.encode(), b"salt", 12_000).hex()

    @app.task(shared=False, name="unpriced", base=BillableTask, sku="nothing")
    def unpriced(client_id: str) -> str:
        return "done"

    @app.task(shared=False, name="free")
    def free() -> str:
        return "unbilled"

    @app.task(shared=False, name="gated", bind=True, base=BillableTask, sku=SKU)
    def gated(self: BillableTask, client_id: str, gate: str) -> int:
        note(directory, f"{gate}.started")
        wait_for_gate(directory, gate)
        return self.request.retries


def _endings(app: celery.Celery, directory: Path) -> None:
    @app.task(shared=False, name="fails", base=BillableTask, sku=SKU)
    def fails(client_id: str) -> None:
        raise ValueError(client_id)

    @app.task(shared=False, name="retries", bind=True, base=BillableTask, sku=SKU, max_retries=5)
    def retries(self: BillableTask, client_id: str, times: int) -> int:
        note(directory, "retries.run", str(self.request.retries))
        if self.request.retries < times:
            raise self.retry(countdown=0.1)
        return self.request.retries

    @app.task(shared=False, name="ignores", base=BillableTask, sku=SKU)
    def ignores(client_id: str) -> None:
        raise Ignore(client_id)

    @app.task(shared=False, name="rejects", base=BillableTask, sku=SKU)
    def rejects(client_id: str) -> None:
        note(directory, "rejects.run")
        raise Reject(client_id, requeue=False)

    @app.task(shared=False, name="unencodable", base=BillableTask, sku=SKU)
    def unencodable(client_id: str) -> object:
        return object()

    @app.task(shared=False, name="killed_once", base=BillableTask, sku=SKU)
    def killed_once(client_id: str, name: str) -> int:
        note(directory, name)
        if len(noted(directory, name)) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return len(noted(directory, name))

    @app.task(shared=False, name="parent", base=BillableTask, sku=SKU)
    def parent(client_id: str) -> str:
        return str(app.tasks["ok"].delay(client_id).id)


def _hooks(app: celery.Celery) -> None:
    class WithHooks(BillableTask):
        """Overrides every hook, without super()."""

        def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
            """Do nothing."""

        def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
            """Raise, which must not lose the charge."""
            raise RuntimeError("a user's hook")

    @app.task(shared=False, name="hooked", base=WithHooks, sku=SKU)
    def hooked(client_id: str) -> str:
        return "done"

    def own_before_start(self: BillableTask, task_id: str, args: Any, kwargs: Any) -> None:
        """Replace the hook by a decorator option."""

    @app.task(shared=False, name="decorated", base=BillableTask, sku=SKU, before_start=own_before_start)
    def decorated(client_id: str) -> str:
        return "done"
