"""The processes of a running fleet on an embedded stack: workers, the fulfillment worker, beat, Flower.

Each is a guarded child with a log of its own; they stop in the order in which work ends: workers first, then the
consumer, which still writes what they settled.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from billing import observability
from billing.embedded.endpoints import Endpoints
from billing.embedded.process import Child
from billing.embedded.server import free_port

_STOP_SECONDS: Final = 15.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FleetPlan:
    """What runs: the app, how many workers with how many prefork children, and whether beat and Flower run too.

    `prefetch`: messages that a child may have waiting, None for what the app's configuration says.
    """

    app: str = "worker_tasks.app"
    workers: int = 1
    children: int = 2
    beat: bool = True
    flower: bool = True
    prefetch: int | None = None
    loglevel: str = "INFO"


class Fleet:
    """The running processes. `workers` are the task workers; `flower_url` is None without Flower."""

    def __init__(
        self, plan: FleetPlan, endpoints: Endpoints, directory: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._plan = plan
        self._directory = directory
        self._environment = {**os.environ, **(environment or {}), **endpoints.environment()}
        self.workers: list[Child] = []
        self.consumer: Child | None = None
        self.beat: Child | None = None
        self.flower: Child | None = None
        self.flower_url: str | None = None
        #: Where each worker serves its metrics, by its name.
        self.metrics_urls: dict[str, str] = {}

    @property
    def children(self) -> list[Child]:
        """Every process of the fleet, in the order in which they stop."""
        return [*self.workers, *(child for child in (self.beat, self.flower, self.consumer) if child is not None)]

    def start(self) -> None:
        """Start all processes; they connect by themselves."""
        self.consumer = self._worker("consumer", "--fulfillment", "-P", "solo")
        for number in range(1, self._plan.workers + 1):
            prefetch = () if self._plan.prefetch is None else (f"--prefetch-multiplier={self._plan.prefetch}",)
            options = ("-P", "prefork", "-c", str(self._plan.children), *prefetch)
            # Without Flower nobody listens, and events are a good part of what a short task costs.
            events = () if self._plan.flower else ("--", "worker.send_task_events=no")
            self.workers.append(self._worker(f"worker{number}", *options, last=events))
        if self._plan.beat:
            self.beat = self._celery("beat", "beat", "-s", str(self._directory / "beat-schedule"))
        if self._plan.flower:
            port = free_port()
            # On loopback alone: Flower shows the work of every client, and has no authentication of its own here.
            place = ("--address=127.0.0.1", f"--port={port}", f"--conf={_flower_configuration()}")
            self.flower = self._celery("flower", "flower", *place, loglevel=False)
            self.flower_url = f"http://127.0.0.1:{port}"

    def stop(self) -> None:
        """Stop all processes: workers, beat and Flower together, then the consumer. Safe to repeat."""
        first = [child for child in self.children if child is not self.consumer]
        if first:
            with concurrent.futures.ThreadPoolExecutor(max_workers=len(first)) as pool:
                list(pool.map(lambda child: child.stop(_STOP_SECONDS), first))
        if self.consumer is not None:
            self.consumer.stop(_STOP_SECONDS)

    def dead(self) -> list[Child]:
        """Return the processes that have ended by themselves."""
        return [child for child in self.children if not child.running]

    def _worker(self, name: str, *options: str, last: tuple[str, ...] = ()) -> Child:
        """Start a worker that serves its metrics on loopback: an address is one worker's."""
        address = f"127.0.0.1:{free_port()}"
        self.metrics_urls[name] = f"http://{address}/metrics"
        variables = {"BILLING_METRICS_ADDRESS": address}
        return self._celery(name, "worker", *options, "-n", f"{name}@%h", last=last, variables=variables)

    def _celery(
        self,
        name: str,
        command: str,
        *options: str,
        loglevel: bool = True,
        last: tuple[str, ...] = (),
        variables: Mapping[str, str] | None = None,
    ) -> Child:
        level = ("-l", self._plan.loglevel) if loglevel else ()
        return Child.spawn(
            name,
            [sys.executable, "-m", "celery", "-A", self._plan.app, command, *options, *level, *last],
            environ={**self._environment, **(variables or {})},
            cwd=Path.cwd(),
            log=self._directory / f"{name}.log",
        )


def _flower_configuration() -> Path:
    """Return the fleet's own `flowerconfig.py`, where there is one, else billing's."""
    own = Path("flowerconfig.py").absolute()
    return own if own.is_file() else Path(observability.__file__).parent / "flower" / "config.py"
