"""A real fleet that is watched: a prefork worker, a fulfillment worker, the exporter, and a real Prometheus."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from billing.embedded.process import Child
from billing.embedded.server import LOOPBACK, free_port
from tests.deploy.prometheus import Prometheus, prometheus
from tests.deploy.queries import JOBS
from tests.fleet.harness import Fleet
from tests.waiting import wait_until

ADDRESS: Final = "BILLING_METRICS_ADDRESS"


@dataclasses.dataclass(kw_only=True)
class Watched:
    """The fleet and who watches it. `consumer` is the fulfillment worker that runs now."""

    fleet: Fleet
    prometheus: Prometheus
    worker: Child
    consumer: Child
    #: Where the consumer serves its metrics: another one may take its place.
    consumer_address: str
    exporter_address: str

    _number: int = 0

    def next_number(self) -> int:
        """Return a number for the name of one process or gate."""
        self._number += 1
        return self._number

    def replace_consumer(self) -> None:
        """Start a fulfillment worker in the place of one that ended."""
        name = f"consumer-{self.next_number()}"
        self.consumer = start_consumer(self.fleet, name, self.consumer_address)
        self.fleet.wait_ready(name)

    def has_fired(self, *alerts: str) -> bool:
        """Whether all of these alerts fire now."""
        return set(alerts) <= self.prometheus.firing()


def start_consumer(fleet: Fleet, name: str, address: str) -> Child:
    """Start a fulfillment worker that serves its metrics."""
    return fleet.start(name, pool="solo", options=("--fulfillment",), environment={ADDRESS: address})


@contextmanager
def watched(fleet: Fleet, *, children: int = 2) -> Iterator[Watched]:
    """Start the processes and Prometheus, and wait until every target is up."""
    addresses = {name: f"{LOOPBACK}:{free_port()}" for name in ("worker", "consumer", "exporter")}
    consumer = start_consumer(fleet, "consumer", addresses["consumer"])
    worker = fleet.start("worker", children=children, environment={ADDRESS: addresses["worker"]})
    fleet.run_module("exporter", "billing.cli.main", "exporter", "--address", addresses["exporter"])
    for name in ("consumer", "worker"):
        fleet.wait_ready(name)
    targets = dict(zip(JOBS.values(), ([address] for address in addresses.values()), strict=True))
    with prometheus(targets, fleet.directory / "prometheus") as asking:
        wait_until(lambda: asking.health() == {job: {"up"} for job in targets}, "every target is up")
        yield Watched(
            fleet=fleet,
            prometheus=asking,
            worker=worker,
            consumer=consumer,
            consumer_address=addresses["consumer"],
            exporter_address=addresses["exporter"],
        )
