"""The rows of usage that a plan reads, links, meters and periods: what the database holds beside the increments."""

from __future__ import annotations

import dataclasses
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from billing.sinks.sync.periods import KnownPeriod


@dataclasses.dataclass(slots=True)
class Row:
    """One row of `usage_rollup`. `credits` and `planned` are what is left after what was returned."""

    credits: int = 0
    planned: int = 0
    returned: int = 0
    returned_planned: int = 0

    @property
    def is_unplanned(self) -> bool:
        """Whether some of it is in no increment."""
        return self.planned < self.credits or self.returned_planned < self.returned


class MemoryUsage:
    """Rows by client, SKU and hour. Meters by SKU; what has none is counted by `event_name`."""

    def __init__(self, *, event_name: str = "credits") -> None:
        self.event_name = event_name
        self.rows: dict[tuple[str, str, datetime], Row] = defaultdict(Row)
        self.customers: dict[str, str] = {}
        self.meters: dict[str, int] = {}
        self.meter_of: dict[str, str] = {}
        self.periods: dict[tuple[str, str], list[KnownPeriod]] = {}
        self._unplanned: dict[str, dict[tuple[str, datetime], None]] = {}
        self._waiting: list[str] = []

    def link(self, client_id: str, customer_id: str) -> None:
        """Link a client to a customer."""
        self.customers[client_id] = customer_id
        if client_id in self._unplanned:
            self._wait(client_id)

    def use(self, client_id: str, sku: str, hour: datetime, credits_: int) -> None:
        """Add usage."""
        self.rows[client_id, sku, hour].credits += credits_
        self.touched(client_id, sku, hour)

    def give_back(self, client_id: str, sku: str, hour: datetime, credits_: int) -> None:
        """Add what a correction returned, in the hour in which it was made."""
        row = self.rows[client_id, sku, hour]
        row.credits -= credits_
        row.returned += credits_
        self.touched(client_id, sku, hour)

    def touched(self, client_id: str, sku: str, hour: datetime) -> None:
        """Note whether a row that was changed has anything unplanned."""
        keys = self._unplanned.get(client_id)
        if self.rows[client_id, sku, hour].is_unplanned:
            if keys is None:
                keys = self._unplanned[client_id] = {}
                if client_id in self.customers:
                    self._wait(client_id)
            keys[sku, hour] = None
        elif keys is not None:
            keys.pop((sku, hour), None)
            if not keys:
                del self._unplanned[client_id]
                at = bisect_right(self._waiting, client_id) - 1
                if at >= 0 and self._waiting[at] == client_id:
                    del self._waiting[at]

    def clients_after(self, after: str, most: int) -> Sequence[str]:
        """Return the next linked clients with anything unplanned."""
        at = bisect_right(self._waiting, after)
        return self._waiting[at : at + most]

    def unplanned_of(self, client_id: str) -> list[tuple[str, datetime]]:
        """Return the SKU and hour of a client's rows with anything unplanned, in order."""
        return sorted(self._unplanned.get(client_id, ()))

    def meter(self, sku: str) -> tuple[str, int]:
        """Return which meter counts a SKU, and the credits of its unit."""
        name = self.meter_of.get(sku, self.event_name)
        return name, self.meters.get(name, 1)

    def _wait(self, client_id: str) -> None:
        at = bisect_right(self._waiting, client_id) - 1
        if at < 0 or self._waiting[at] != client_id:
            insort(self._waiting, client_id)
