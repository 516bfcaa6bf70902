"""A real Celery worker under measurement: started below a guard, given bursts of tasks, timed by its own children.

A burst is in the queue before the worker may take the first of it, so that publishing is not part of what is timed.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import celery
import psutil

from benchmarks.fleet import PROGRESS, make_app
from billing.embedded.process import Child

ROOT: Final = Path(__file__).parents[1]
QUEUE: Final = "tasks"
START_SECONDS: Final = 60.0
BURST_SECONDS: Final = 300.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Burst:
    """What the children noted of one burst: from the first task's beginning to the last one's end."""

    tasks: int
    seconds: float

    @property
    def rate(self) -> float:
        """Tasks per second."""
        return self.tasks / self.seconds


class Worker:
    """One worker and what sends to it."""

    def __init__(
        self, name: str, environment: Mapping[str, str], directory: Path, *, python: str = sys.executable
    ) -> None:
        self.name = name
        self._python = python
        self._progress = directory / f"{name}.progress"
        self._progress.mkdir()
        self._environment = dict(environment)
        self._log = directory / f"{name}.log"
        self._directory = directory
        self._app: celery.Celery = make_app({**self._environment, "BENCHMARK_BATCHES": ""})
        self._child: Child | None = None

    def start(self, *options: str) -> None:
        """Start `celery worker` with some options, and wait until it is ready."""
        self._child = Child.spawn(
            self.name,
            [self._python, "-m", "celery", "-A", "benchmarks.fleet", "worker", "-n", self._node, *options],
            environ={
                **os.environ,
                **self._environment,
                "PYTHONPATH": str(ROOT),
                "BENCHMARK_PROGRESS": str(self._progress),
            },
            cwd=self._directory,
            log=self._log,
        )
        wait_until(self._progress.with_suffix(".ready").exists, f"{self.name} is ready", START_SECONDS)

    def run(self, number: int, task: str, calls: Sequence[str], *, billed: bool = True) -> Burst:
        """Queue one task per client of `calls`, let the worker take them, and return how it went. Numbers differ.

        Tasks that are not billed in any comparison may be published without Celery's signals, in half the time.
        """
        # A connection for this burst alone: kombu's pools outlive the virtual host of a deployment.
        with self._app.connection_for_write() as connection:
            here: Any = {"connection": connection, "destination": [self._node], "reply": True}
            self._app.control.cancel_consumer(QUEUE, **here)
            producer = self._app.amqp.Producer(connection)
            for client_id in calls:
                if billed:
                    self._app.send_task(task, (client_id, number), queue=QUEUE, producer=producer, ignore_result=True)
                else:
                    self._publish(producer, task, (client_id, number))
            self._app.control.add_consumer(QUEUE, **here)
        wait_until(lambda: self._done(number) >= len(calls), f"a burst of {self.name} ends", BURST_SECONDS)
        notes = [note for note in self._notes() if note[0] == number]
        first, last = min(note[1] for note in notes), max(note[2] for note in notes)
        return Burst(tasks=sum(note[3] for note in notes), seconds=(last - first) / 1e9)

    def _publish(self, producer: Any, task: str, args: tuple[str, int]) -> None:
        message: Any = self._app.amqp.create_task_message(str(uuid.uuid4()), task, args, {}, ignore_result=True)
        properties = {**message.properties, "headers": message.headers, "delivery_mode": 2}
        producer.publish(message.body, exchange="", routing_key=QUEUE, **properties)

    def pss_bytes(self) -> int:
        """Return what a child holds of the machine's memory: shared pages count by their share. Median of all."""
        pids = [int(path.name) for path in self._progress.iterdir()]
        return round(statistics.median(psutil.Process(pid).memory_full_info().pss for pid in pids))

    def resident_bytes(self) -> int:
        """Return what the worker's main process holds of the machine's memory (RSS). Its pool is `solo`."""
        if self._child is None:
            raise RuntimeError(f"{self.name} does not run")
        return int(psutil.Process(self._child.child_pid).memory_info().rss)

    def last_lines(self) -> list[str]:
        """Return what the worker has said last."""
        return [] if self._child is None else self._child.last_lines()

    def pause(self) -> None:
        """Have the worker stand still (SIGSTOP), so that it takes nothing of the machine. Its pool is `solo`."""
        if self._child is not None:
            psutil.Process(self._child.child_pid).suspend()

    def resume(self) -> None:
        """Have the worker go on."""
        if self._child is not None and self._child.running:
            psutil.Process(self._child.child_pid).resume()

    def stop(self) -> None:
        """Stop the worker, also one that stands still."""
        if self._child is not None:
            self.resume()
            self._child.stop(20)
        self._app.close()

    @property
    def _node(self) -> str:
        return f"{self.name}@benchmark"

    def _done(self, number: int) -> int:
        return sum(note[3] for note in self._notes() if note[0] == number)

    def _notes(self) -> list[tuple[int, int, int, int]]:
        found: list[tuple[int, int, int, int]] = []
        for path in self._progress.iterdir():
            burst, first, last, count = PROGRESS.unpack(path.read_bytes())
            found.append((burst, first, last, count))
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def wait_until(condition: Callable[[], bool], what: str, timeout_seconds: float) -> None:
    """Return as soon as `condition` holds; raise `TimeoutError` when it does not in time."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_seconds:g} s: {what}")
        time.sleep(0.01)
