"""The metrics of one worker: its main process makes and serves them, the children of its pool count beside it."""

from __future__ import annotations

from prometheus_client.registry import Collector

from billing.observability.metrics.catalogue import Source
from billing.observability.metrics.counts import Counts, CountsCollector, new_memory
from billing.observability.metrics.serving import MetricsServer


class WorkerMetrics:
    """What a worker has of them. Its pool's children inherit it."""

    def __init__(self, address: str, *, fulfillment: bool = False) -> None:
        """Take `address`. Raises `InvalidValue` where that cannot be done."""
        memory = new_memory()
        sources = (Source.WORKER, Source.FULFILLMENT) if fulfillment else (Source.WORKER,)
        self._server = MetricsServer(address, CountsCollector(memory, *sources))
        self.counts = Counts(memory)

    def add(self, collector: Collector) -> None:
        """Serve what another collector says, too."""
        self._server.add(collector)

    def start(self) -> str:
        """Answer from now on; return the address."""
        self._server.start()
        return self._server.url

    def enter(self, index: int) -> bool:
        """Be the pool's child of this index; return whether it can be counted."""
        # The main process answers.
        self._server.abandon()
        return self.counts.enter(index)

    def close(self) -> None:
        """Stop listening."""
        self._server.close()
