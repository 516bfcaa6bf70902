"""Kills random processes of prefork workers by SIGKILL, a worker or one of its children, and starts workers anew."""

from __future__ import annotations

import collections
import contextlib
import random
import signal
from collections.abc import Iterator

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

    def kill(self) -> bool:
        """Kill one process, as often a worker as a child, and start the workers again that are dead.

        Workers that are still starting are spared, so that each death hits the work; returns whether somebody died.
        """
        self.revive()
        at_work = [(worker, children) for worker, children in self._running() if children]
        if not at_work:
            return False
        kind = self._random.choice(("worker", "child"))
        worker, children = self._random.choice(at_work)
        with contextlib.suppress(psutil.NoSuchProcess):
            (worker if kind == "worker" else self._random.choice(children)).send_signal(signal.SIGKILL)
            self.killed[kind] += 1
        self.revive()
        return True

    def _running(self) -> Iterator[tuple[psutil.Process, list[psutil.Process]]]:
        for name in self.names:
            with contextlib.suppress(psutil.NoSuchProcess):
                if self._workers[name].running:
                    worker = psutil.Process(self._workers[name].child_pid)
                    yield worker, worker.children()
