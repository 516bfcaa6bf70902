"""The world of a simulated sync: the stage, and clients whose usage is drawn from the seed.

`run` is so many days with faults, and days without any, until all that can be settled is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from datetime import datetime

from billing.core.clock import from_milliseconds
from tests.simulation.chance import BEGINNING_MS, Chance
from tests.simulation.sync import population
from tests.simulation.sync.chances import DAY, Outage, Rates
from tests.simulation.sync.kernel import Kernel
from tests.simulation.sync.population import METER_OF, Client
from tests.simulation.sync.stage import Size, Stage


class World(Stage):
    """Everything there is, from one seed."""

    def __init__(
        self, seed: int, size: Size, rates: Rates | None = None, given: Sequence[Outage] | None = None
    ) -> None:
        super().__init__(Chance(seed), Kernel(), size, rates=rates, given=given)
        self.seed = seed

    def run(self, look: Callable[[], None] | None = None) -> None:
        """Live through all of it; `look` is called at the end of each day."""
        self.open()
        for day in range(1, self.size.days + 1):
            self.live_until(BEGINNING_MS + day * DAY)
            if look is not None:
                look()
        self.settle(look)

    def begin_client(self, number: int, client: Client) -> None:
        """Have a client come and go, and use something in between."""
        super().begin_client(number, client)
        if client.every_hours:
            first = population.next_use(self.chance, client, client.begins_ms)
            self.at(first, lambda: self._use(number, client))

    def _use(self, number: int, client: Client) -> None:
        now = self.kernel.ms
        if now >= self.end_ms:
            return
        for use in population.uses(self.chance, client, number, now, 0):
            self.at(use.arrives_ms, functools.partial(self._arrive, client, use))
        self.at(population.next_use(self.chance, client, now), lambda: self._use(number, client))

    def _arrive(self, client: Client, use: population.Use) -> None:
        if self.kernel.ms >= self.end_ms:
            return
        hour: datetime = from_milliseconds(use.hour_ms)
        if use.credits > 0:
            self.usage.use(client.client_id, use.sku, hour, use.credits)
        else:
            self.usage.give_back(client.client_id, use.sku, hour, -use.credits)
        self.counts["uses" if use.credits > 0 else "corrections"] += 1
        self.logged[client.client_id, METER_OF.get(use.sku, "credits")] += use.credits


__all__ = ["Size", "World"]
