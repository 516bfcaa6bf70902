"""The rows of usage that a plan reads, links, meters and periods: what the database holds beside the increments."""

from __future__ import annotations

import dataclasses
import itertools
from bisect import bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from billing.sinks.sync.log import Having
from billing.sinks.sync.planning.period_source import PeriodsFound
from billing.sinks.sync.planning.periods import KnownPeriod, merged

_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


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
    """Rows by client, SKU and hour; meters and their SKUs as the planner reads them."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, datetime], Row] = defaultdict(Row)
        self.customers: dict[str, str] = {}
        self.meters: dict[str, int] = {}
        self.meter_of: dict[str, str] = {}
        #: Of each customer, by meter, the oldest first.
        self.periods: dict[str, dict[str, list[KnownPeriod]]] = {}
        #: When each customer's were read, and why there are none.
        self.reads: dict[str, tuple[datetime | None, str]] = {}
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

    def clients_after(self, after: str) -> Iterator[str]:
        """Yield the next linked clients with anything unplanned, in order. Nothing may change meanwhile."""
        return itertools.islice(self._waiting, bisect_right(self._waiting, after), None)

    def unplanned_of(self, client_id: str) -> list[tuple[str, datetime]]:
        """Return the SKU and hour of a client's rows with anything unplanned, in order."""
        return sorted(self._unplanned.get(client_id, ()))

    def has(self, client_id: str, having: Having, now: datetime) -> bool:
        """Whether a client has what it needs so that anything of it can be planned."""
        if having is Having.NOTHING:
            return True
        known = [period for found in self.periods.get(self.customers[client_id], {}).values() for period in found]
        if having is Having.CLOSING_PERIOD:
            return any(period.is_closing(now) for period in known)
        return bool(known) if having is Having.KNOWN_PERIOD else any(period.is_open(now) for period in known)

    def unread(
        self, anew: Collection[str], *, now: datetime, before: datetime, most: int, meter: str, client_id: str | None
    ) -> list[str]:
        """Return customers with a unit to plan whose periods were not read since `before`; `anew`: clients."""
        found = []
        whole = (name for name in self._waiting if self._has_unit(name, meter))
        for name in {*whole, *(other for other in anew if other in self.customers)}:
            customer_id = self.customers[name]
            read_at, reason = self.reads.get(customer_id, (None, ""))
            if client_id in (None, name) and (read_at is None or read_at < before or read_at > now):
                known = self.periods.get(customer_id, {})
                covered = any(one.start <= now < one.end for periods in known.values() for one in periods)
                found.append((covered or bool(reason), read_at or _LONG_AGO, customer_id))
        return [customer_id for *_, customer_id in sorted(found)[:most]]

    def _has_unit(self, client_id: str, meter: str) -> bool:
        """Whether what is unplanned of a client makes a unit of any meter."""
        sums: Counter[str] = Counter()
        for sku, hour in self._unplanned[client_id]:
            row = self.rows[client_id, sku, hour]
            sums[self.meter_of.get(sku, meter)] += row.credits - row.planned
        return any(credits_ >= self.meters.get(name, 1) for name, credits_ in sums.items())

    def count_waiting(self, having: Having, *, now: datetime, client_id: str | None) -> Mapping[str, int]:
        """Return how many clients with unplanned usage a plan leaves out, by reason."""
        left = [name for name in self._waiting if client_id in (None, name) and not self.has(name, having, now)]
        reasons = (self.reads.get(self.customers[name], (None, ""))[1] for name in left)
        return dict(Counter(reason or "no billing period is open" for reason in reasons))

    def keep(
        self, customer_id: str, found: PeriodsFound | None, read_at: datetime
    ) -> Mapping[str, Sequence[KnownPeriod]]:
        """Keep what was read of a customer; return the periods of meters of which any is another now."""
        if found is None:
            self.reads[customer_id] = read_at, self.reads.get(customer_id, (None, ""))[1]
            return {}
        self.reads[customer_id] = read_at, "; ".join(_said(found))
        known = self.periods.setdefault(customer_id, {})
        changed = {}
        for event_name in sorted({*known, *found.periods}):
            old = known.get(event_name, [])
            known[event_name] = new = merged(old, found.periods.get(event_name, ()), read_at)
            if not old or any(period not in new for period in old):
                changed[event_name] = new
        return changed

    def _wait(self, client_id: str) -> None:
        at = bisect_right(self._waiting, client_id) - 1
        if at < 0 or self._waiting[at] != client_id:
            insort(self._waiting, client_id)


def _said(found: PeriodsFound) -> Iterator[str]:
    for event_name, reason in sorted(found.reasons.items()):
        yield f"{event_name}: {reason}" if event_name else reason
