"""Kills random processes of prefork workers by SIGKILL, a worker or one of its children, and starts workers anew."""

from __future__ import annotations

import collections
import contextlib
import random
import signal
from collections.abc import Iterator, Sequence

import psutil

from billing.embedded.process import Child
from tests.fleet.harness import Fleet


class Killer:
    """Workers of a fleet and whoever kills them; which process dies is the seed's choice."""

    def __init__(self, fleet: Fleet, *, workers: int, children: int, seed: int) -> None:
        self._fleet, self._children = fleet, children
        self._random = random.Random(seed)
        self.names = [f"worker-{number}" for number in range(workers)]
        self._workers: dict[str, Child] = {}
        #: How many of each kind were killed.
        self.killed: collections.Counter[str] = collections.Counter()
        self.revive()

    def revive(self) -> None:
        """Start every worker that does not run."""
        for name in self.names:
            if name not in self._workers or not self._workers[name].running:
                self._workers[name] = self._fleet.start(name, children=self._children)

    def kill(self) -> None:
        """Kill one process that runs, and start the workers again that are dead. A worker replaces its children."""
        kind, process = self._random.choice(self._victims())
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
            self.killed[kind] += 1
        self.revive()

    def _victims(self) -> Sequence[tuple[str, psutil.Process]]:
        return list(self._running())

    def _running(self) -> Iterator[tuple[str, psutil.Process]]:
        for name in self.names:
            if not self._workers[name].running:
                continue
            with contextlib.suppress(psutil.NoSuchProcess):
                worker = psutil.Process(self._workers[name].child_pid)
                found = [("worker", worker), *(("child", child) for child in worker.children())]
                yield from found
