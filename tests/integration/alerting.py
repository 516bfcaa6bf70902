"""The scene of the alert tests: buckets in a real Redis, the table in a real PostgreSQL, a clock to be moved."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy

from billing import admin
from billing.alerts.deliveries import Deliveries
from billing.alerts.recording import record
from billing.connections import redis as redis_connection
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.credits.values import ReserveOutcome
from billing.task.runtime import Runtime
from tests.amqp import MovedClock
from tests.contract.making import a_hold, a_run
from tests.waiting import wait_until


class Scene:
    """Clients who run dry, and workers that deliver their alerts."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = MovedClock()
        self.runtime = Runtime(lambda: settings, self.clock)
        (self.redis,) = redis_connection.servers(redis_connection.connect(settings))
        self._runs = 0
        self._workers: list[Deliveries] = []

    def client(self, client_id: str, credits: int = 100, *, url: str = "") -> str:
        """Make a client; return the secret of its webhook, if it has one."""
        admin.add_client(self.settings, client_id)
        if credits:
            admin.grant(self.settings, client_id, credits, key="first")
        return admin.set_webhook(self.settings, client_id, url)[1] or "" if url else ""

    def take(self, client_id: str, credits: int) -> ReserveOutcome:
        """Reserve for a run of its own."""
        self._runs += 1
        hold = a_hold(a_run(client_id, f"run-{self._runs}"), credits, client_id=client_id)
        return self.runtime.buckets.reserve(hold).outcome

    def alerted(self, *client_ids: str) -> None:
        """Have each client fall below 20 %, and write it down."""
        for client_id in client_ids:
            assert self.take(client_id, 90) is ReserveOutcome.HELD
        assert record(self.runtime) == len(client_ids)

    def stream(self, client_id: str) -> str:
        """Return the key of the stream that a client's alerts go to."""
        return f"{{billing:{shard_of(client_id, self.settings.shards)}}}:alerts"

    def worker(self) -> Deliveries:
        """Return the deliveries of one worker."""
        self._workers.append(Deliveries(self.runtime))
        return self._workers[-1]

    def deliver(self, worker: Deliveries) -> None:
        """Begin what is due, wait for the answers and write them down."""
        worker.step()
        worker.finish()

    def rows(self, columns: str = "client_id, delivery, attempts, reason") -> list[tuple[Any, ...]]:
        """Return the table, oldest first."""
        with self.runtime.engine.connect() as connection:
            found = connection.execute(sqlalchemy.text(f"SELECT {columns} FROM alert ORDER BY alert_id"))
            return [tuple(row) for row in found]

    def step_until(self, worker: Deliveries, condition: Callable[[], object], what: str) -> None:
        """Step as the loop does, which never waits for a webhook, until a condition holds."""

        def stepped() -> object:
            worker.step()
            return condition()

        wait_until(stepped, what)

    def close(self) -> None:
        """Close everything."""
        for worker in self._workers:
            worker.close()
        # The thread of a call that outlasted its pass writes how it ended.
        wait_until(lambda: not _calls(), "the calls of receivers and hooks have ended")
        self.redis.close()
        self.runtime.close()
        admin.close(self.settings)


def _calls() -> list[str]:
    """Return the threads of calls under way."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("billing-alert-receiver", "billing-top-up-"))]


class Called(list[str]):
    """For whom a receiver was called; it goes on when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()


@contextlib.contextmanager
def hanging(signal: Any, hangs_for: str | None = None) -> Iterator[Called]:
    """Have a receiver that hangs, for one client or for all, until the test goes on; yield for whom it was called."""
    called = Called()

    def hangs(client_id: str, **_: Any) -> None:
        called.append(client_id)
        if hangs_for in (None, client_id):
            called.go_on.wait()

    signal.connect(hangs)
    try:
        yield called
    finally:
        signal.disconnect(hangs)
        called.go_on.set()
