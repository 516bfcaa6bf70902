"""Starts and stops the real processes of a fleet under test, and reads the books of its clients."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import celery
import psycopg

from billing import admin
from billing.core.settings import Settings
from billing.credits.values import Balance, StoredHold
from billing.credits.verbs import Verbs
from billing.embedded.process import Child
from billing.task.runtime import Runtime
from tests.fleet.tasks import OTHER_SKU, SKU
from tests.waiting import LIMIT_SECONDS, wait_until

ROOT = Path(__file__).parents[2]
#: Credits for one unit of each SKU of the fleet.
PRICES = {SKU: 10, OTHER_SKU: 3}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the usage history, as far as tests look at it."""

    client_id: str
    correlation_id: str
    sku: str
    quantity: int
    credits: int
    late: bool
    attempt: int
    mode: str | None = None


class Fleet:
    """Workers, a consumer, and the servers they use."""

    #: What its workers are started with; a test with tasks of its own names its own.
    module = "tests.fleet.worker"

    def __init__(self, app: celery.Celery, settings: Settings, environment: dict[str, str], directory: Path) -> None:
        self.app = app
        self.settings = settings
        self.directory = directory
        self.runtime = Runtime(lambda: settings)
        self._environment = environment
        self._children: list[Child] = []
        self._starting: list[str] = []

    @property
    def buckets(self) -> Verbs:
        """The buckets, as an administrator sees them."""
        return self.runtime.buckets

    def worker(
        self, name: str = "worker", *, children: int = 2, pool: str = "prefork", options: tuple[str, ...] = ()
    ) -> Child:
        """Start a task worker and return when it answers, and who was started before it and not waited for."""
        child = self.start(name, children=children, pool=pool, options=options)
        for started in (*self._starting, name):
            self.wait_ready(started)
        self._starting.clear()
        return child

    def start(
        self,
        name: str,
        *,
        children: int = 1,
        pool: str = "prefork",
        options: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a task worker, and do not wait for it."""
        arguments = ("-P", pool, "-c", str(children), "-n", f"{name}@test", "-l", "INFO", *options)
        return self._spawn(name, "worker", *arguments, environment=environment)

    def consumer(self, name: str = "consumer", *, wait: bool = True) -> Child:
        """Start a fulfillment worker and return when it answers; without `wait` the next `worker` waits for both."""
        child = self._spawn(name, "worker", "--fulfillment", "-P", "solo", "-n", f"{name}@test", "-l", "INFO")
        if wait:
            self.wait_ready(name)
        else:
            self._starting.append(name)
        return child

    def wait_ready(self, name: str) -> None:
        """Wait until a worker says that it is ready."""
        log = self.directory / f"{name}.log"
        wait_until(lambda: " ready." in log.read_text(errors="replace"), f"{name} is ready: {log}")

    def client(self, client_id: str, credits: int) -> str:
        """Make a client with one grant."""
        admin.add_client(self.settings, client_id)
        _, applied = admin.grant(self.settings, client_id, credits, key="first")
        assert applied
        return client_id

    def send(self, name: str, *args: Any) -> Any:
        """Submit a task of the fleet."""
        return self.app.tasks[name].apply_async(args)

    def balance(self, client_id: str) -> Balance:
        """Return a client's bucket, which must keep L2 whenever one looks."""
        balance = admin.balance(self.settings, client_id)
        assert balance.granted + balance.owed == balance.available + balance.held + balance.spent, balance
        for grant in balance.grants:
            assert grant.granted == grant.available + grant.held + grant.spent + grant.repaid, grant
        return balance

    def holds(self, client_id: str) -> list[StoredHold]:
        """Return the holds of a client."""
        return self.buckets.held(client_id)

    def rows(self, client_id: str | None = None) -> list[Row]:
        """Return the usage history, oldest first."""
        columns = ", ".join(field.name for field in dataclasses.fields(Row))
        query = f"SELECT {columns} FROM usage_history WHERE client_id = coalesce(%s, client_id) ORDER BY run_id, line"
        with psycopg.connect(self.settings.database_url) as connection:
            found = connection.execute(query.encode(), [client_id]).fetchall()
        return [Row(**dict(zip([f.name for f in dataclasses.fields(Row)], row, strict=True))) for row in found]

    def wait_for_rows(
        self, count: int, client_id: str | None = None, *, timeout_seconds: float = LIMIT_SECONDS
    ) -> list[Row]:
        """Wait until the usage history has `count` rows of a client, and return them."""
        wait_until(lambda: len(self.rows(client_id)) >= count, f"{count} rows", timeout_seconds=timeout_seconds)
        return self.rows(client_id)

    def run_module(self, name: str, module: str, *arguments: str) -> Child:
        """Start another process of the fleet: `python -m module`, with the fleet's servers in its environment."""
        return self._run(name, module, *arguments)

    def stop(self) -> None:
        """Stop every process, all at once."""
        with ThreadPoolExecutor(max(1, len(self._children))) as pool:
            list(pool.map(lambda child: child.stop(20), self._children))
        self.runtime.close()
        admin.close(self.settings)

    def _spawn(self, name: str, command: str, *options: str, environment: Mapping[str, str] | None = None) -> Child:
        return self._run(name, "celery", "-A", self.module, command, *options, environment=environment)

    def _run(self, name: str, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Child:
        child = Child.spawn(
            name,
            [sys.executable, "-m", module, *arguments],
            environ={**os.environ, **self._environment, "PYTHONPATH": str(ROOT), **(environment or {})},
            cwd=self.directory,
            log=self.directory / f"{name}.log",
        )
        self._children.append(child)
        return child
