"""The metrics of one worker: its main process makes them and serves them, the children of its pool count.

Children that are forked have the memory; those that are spawned find it by its path.
"""

from __future__ import annotations

from pathlib import Path

from prometheus_client.registry import Collector

from billing.observability.metrics.catalogue import Source
from billing.observability.metrics.counts import Counts, CountsCollector, known_memory, new_memory
from billing.observability.metrics.serving import MetricsServer


class WorkerMetrics:
    """What a worker's main process has of them."""

    def __init__(self, address: str, *, fulfillment: bool = False, spawns: bool = False) -> None:
        """Take `address`; `spawns`: children do not inherit memory. Raises `InvalidValue` for one that is taken."""
        self._memory = new_memory(named=spawns)
        sources = (Source.WORKER, Source.FULFILLMENT) if fulfillment else (Source.WORKER,)
        self.server = MetricsServer(address, CountsCollector(self._memory, *sources))
        self.counts = Counts(self._memory)

    @property
    def path(self) -> Path | None:
        """Where children that are spawned find the counts."""
        return self._memory.path

    def add(self, collector: Collector) -> None:
        """Serve what another collector says, too."""
        self.server.add(collector)

    def start(self) -> str:
        """Answer from now on; return the address."""
        self.server.start()
        return self.server.url

    def close(self) -> None:
        """Stop listening, and leave nothing behind."""
        self.server.close()
        self._memory.forget()


def counts_of_parent(path: Path) -> Counts:
    """Return the counts of a child that was spawned, which has no row yet."""
    return Counts(known_memory(path), None)
