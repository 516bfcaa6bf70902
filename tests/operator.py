"""A small site on this machine: a fleet on given servers, and the shell of whoever operates it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

import psycopg

from billing.embedded.postgres import binaries
from billing.embedded.process import Child
from tests.newcomer import Newcomer
from tests.waiting import wait_until
from tests.wheels import ROOT

FLEET: Final = ("celeryconfig.py", "beat_schedule.py", "flowerconfig.py")
SEARCH: Final = "from worker_tasks.search import premium_search as s"


class Site:
    """A fleet in a directory. `environment`: where its servers are; `programs`: where `billing` and `python` are."""

    def __init__(
        self,
        directory: Path,
        programs: Path,
        environment: Mapping[str, str],
        *,
        instead: Mapping[str, str] | None = None,
        **settings: str,
    ) -> None:
        copy_fleet(directory)
        (directory / ".billing").mkdir()
        self._directory = directory
        self._fleet: dict[str, Child] = {}
        self.environment = {
            # As long as a busy machine may need.
            "BILLING_REDIS_TIMEOUT_SECONDS": "60",
            "BILLING_DATABASE_TIMEOUT_SECONDS": "60",
            **environment,
            **settings,
            # The tools of PostgreSQL are those of the server's version.
            "PATH": f"{programs}:{binaries()}:{os.environ['PATH']}",
            "COLUMNS": "160",
        }
        self.shell = Newcomer(directory, self.environment, masked=True, instead=instead)

    def __enter__(self) -> Self:
        """Do nothing yet: whoever opens it migrates its database."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the fleet."""
        self.stop(*self._fleet)
        self.shell.close()

    def start(self, *names: str, root: Path = ROOT) -> None:
        """Start workers, or, by that name, fulfillment workers, of a checkout; wait until they are ready."""
        directory = self._directory if root is ROOT else root
        for name in names:
            options = ("--fulfillment", "-P", "solo") if name.startswith("consumer") else ("-c", "1")
            self._log(name).unlink(missing_ok=True)
            celery = (sys.executable, "-m", "celery", "-A", "worker_tasks.app", "worker", "-n", f"{name}@%h")
            environ = {**os.environ, **self.environment, "PYTHONPATH": str(root)}
            self._fleet[name] = Child.spawn(
                name, [*celery, "-l", "INFO", *options], environ=environ, cwd=directory, log=self._log(name)
            )
        for name in names:
            self._wait_ready(name)

    def stop(self, *names: str) -> None:
        """Ask some of them to end, and wait for that."""
        for name in names:
            self._fleet.pop(name).stop(30)

    def kill(self, name: str) -> None:
        """End one of them at once."""
        self._fleet.pop(name).kill()

    def child(self, name: str) -> Child:
        """Return a running one."""
        return self._fleet[name]

    def work(self, client_id: str, times: int = 1) -> None:
        """Have a client use searches, and wait for their results."""
        self.shell.do(
            f"python -c \"{SEARCH}; [s.delay('{client_id}', 'json').get(timeout=100) for _ in range({times})]\""
        )

    def wait_for_rows(self, count: int) -> None:
        """Wait until the log has so many rows."""
        self.wait_for("SELECT count(*) FROM usage_history", count)

    def wait_for(self, query: str, expected: object) -> None:
        """Wait until PostgreSQL answers so."""
        with psycopg.connect(self.environment["BILLING_DATABASE_URL"], autocommit=True) as session:
            wait_until(lambda: session.execute(query.encode()).fetchone() == (expected,), query)

    def _wait_ready(self, name: str) -> None:
        log = self._log(name)
        wait_until(lambda: " ready." in log.read_text("utf-8", "replace"), f"{name} is ready")

    def _log(self, name: str) -> Path:
        return self._directory / ".billing" / f"{name}.log"


def copy_fleet(directory: Path) -> None:
    """Copy the checkout's fleet into a directory."""
    for name in FLEET:
        shutil.copy(ROOT / name, directory / name)
    shutil.copytree(ROOT / "worker_tasks", directory / "worker_tasks", ignore=shutil.ignore_patterns("__pycache__"))
