"""What a cell's drive works with: its client, its tasks, its gate, and workers, proxies and processes of its own."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

import celery
import psycopg

from billing.embedded.process import Child
from tests.endings.cell import Cell, Looked
from tests.endings.combination import Combination
from tests.endings.worker_options import CONFIGURATION
from tests.fleet.harness import Fleet
from tests.fleet.tasks import noted
from tests.proxy import Proxy, in_front_of
from tests.waiting import wait_until

#: Bounds a wait for a condition; it is far above what a busy machine needs.
WAIT_SECONDS: Final = 240.0
_STOP_SECONDS: Final = 20.0


class Scene:
    """One cell in one place."""

    def __init__(self, fleet: Fleet, place: Combination, cell: Cell, sending: threading.Lock, *, leases: int) -> None:
        self.fleet = fleet
        self.place = place
        self.cell = cell
        #: How many leases a long run must outlive.
        self.leases = leases
        self.settled = threading.Event()
        self._sending = sending
        self._kept: list[Any] = []
        self._workers: list[Child] = []
        self._proxies = contextlib.ExitStack()

    @property
    def client(self) -> str:
        """The cell's client."""
        return self.cell.key

    @property
    def queue(self) -> str:
        """The queue of the cell's workers."""
        return self.cell.key if self.cell.alone else "tasks"

    @property
    def gate(self) -> str:
        """The cell's gate, for tasks that wait until it is open."""
        return f"{self.client}.gate"

    def task(self, name: str) -> Any:
        """Return a task, on the cell's queue where it is used in a signature."""
        return self.fleet.app.tasks[name]

    def signature(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Return an immutable signature of a task for the cell's client, on the cell's queue."""
        return self.task(name).si(self.client, *args, **kwargs).set(queue=self.queue)

    def send(self, name: str, *args: Any, **options: Any) -> str:
        """Submit a task for the cell's client and return its id."""
        return str(self.submit(self.task(name), (self.client, *args), queue=self.queue, **options).id)

    def submit(self, what: Any, *args: Any, **options: Any) -> Any:
        """Submit a task or a canvas. One at a time: the result backend's subscriptions are one connection."""
        with self._sending:
            result = what.apply_async(*args, **options)
        # A result that is dropped unsubscribes, in whatever thread that happens.
        self._kept.append(result)
        return result

    def looked(self, *results: str, **options: Any) -> Looked:
        """Return where to look."""
        return Looked(results=results, **options)

    def worker(
        self,
        *,
        children: int = 2,
        patient: bool = False,
        configuration: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a worker of the cell's own and return when it answers.

        A patient one's holds outlast the time that the slowest machine needs until a message comes again.
        """
        assert self.cell.alone
        name = f"{self.cell.key}-{len(self._workers) + 1}"
        more = {CONFIGURATION: json.dumps(configuration or {}), **(environment or {})}
        if patient:
            more["BILLING_LEASE_SECONDS"] = "600"
        options = ("-E", "-Q", self.queue)
        child = self.fleet.start(name, children=children, pool=self.place.pool, options=options, environment=more)
        self._workers.append(child)
        self.fleet.wait_ready(name)
        return child

    def successor(self, worker: Child) -> Child:
        """Start another worker once one has ended."""
        self.wait(lambda: not worker.running, "the worker has ended")
        return self.worker()

    def replace(self, worker: Child) -> Child:
        """Stop a worker that goes on, and start another one."""
        worker.stop(_STOP_SECONDS)
        return self.worker()

    def run(self, module: str, *arguments: str) -> None:
        """Run another process of the fleet to its end."""
        child = self.fleet.run_module(f"{self.client}-{module}", f"tests.endings.{module}", *arguments)
        assert child.wait(WAIT_SECONDS) == 0, child.last_lines()

    def proxy(self) -> tuple[Proxy, str]:
        """Return a proxy in front of the broker, and the broker's address through it."""
        return self._proxies.enter_context(in_front_of(self.fleet.settings.broker_url))

    def order_death(self, step: str) -> None:
        """Have the process die by SIGKILL that comes to a step of billing for the client next."""
        (self.fleet.directory / f"kill.{step}.{self.client}").touch()

    def open_gate(self) -> None:
        """Let the tasks that wait go on."""
        (self.fleet.directory / self.gate).touch()

    def noted(self, name: str) -> list[str]:
        """Return what tasks have noted under a name of the client's."""
        return noted(self.fleet.directory, f"{self.client}.{name}")

    def wait_started(self, count: int = 1) -> None:
        """Wait until so many deliveries of a gated task run, or have run."""
        self.wait(lambda: len(self.noted("gate.started")) >= count, f"{count} deliveries have started")

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition."""
        wait_until(condition, f"{self.cell.key}: {what}", timeout_seconds=WAIT_SECONDS)

    def wait_logged(self, worker: Child, text: str) -> None:
        """Wait until a worker has written a text to its log."""
        self.wait(lambda: text in worker.log.read_text(errors="replace"), f"{worker.name} says {text!r}")

    def wait_spent(self, credits_: int) -> None:
        """Wait until the client has spent so much."""
        self.wait(lambda: self.fleet.balance(self.client).spent == credits_, f"{credits_} credits are spent")

    def run_ids(self) -> list[str]:
        """Return the ids of the client's runs in the usage history, in hex."""
        with psycopg.connect(self.fleet.settings.database_url) as connection:
            found = connection.execute("SELECT run_id FROM usage_history WHERE client_id = %s", [self.client])
            return [run_id.hex for (run_id,) in found]

    def revoke(self, task_id: str, **options: Any) -> None:
        """Revoke a task and return when a worker has heard of it."""
        replies: list[Any] = []

        def heard() -> bool:
            with self._sending:
                replies.extend(self.control.revoke(task_id, reply=True, timeout=2.0, **options) or [])
            return any("ok" in answer for reply in replies for answer in reply.values())

        self.wait(heard, "a worker has heard of the revocation")

    @property
    def control(self) -> Any:
        """Celery's remote control."""
        app: celery.Celery = self.fleet.app
        return app.control

    def close(self) -> None:
        """Stop what is the cell's own."""
        for worker in self._workers:
            worker.stop(_STOP_SECONDS)
        self._proxies.close()
