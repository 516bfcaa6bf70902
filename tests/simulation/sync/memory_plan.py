"""One slice of a plan in memory: what it writes is seen at once, and undone when the slice does not come to its end."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from billing.sinks.sync import protocol
from billing.sinks.sync.increment import Increment, State
from billing.sinks.sync.log import Having
from billing.sinks.sync.planning.drafts import Meters, Planned, Unplanned
from billing.sinks.sync.planning.periods import KnownPeriod

if TYPE_CHECKING:
    from tests.simulation.sync.memory_log import MemoryLog

#: As many clients as PostgreSQL's plan takes at a time.
CLIENTS: Final = 200


class MemoryPlan:
    """A `Plan` on a `MemoryLog`."""

    def __init__(self, log: MemoryLog, client_id: str | None = None) -> None:
        self._log, self._client_id = log, client_id
        self._undo: list[Callable[[], None]] = []

    def meters(self) -> Meters:
        """Return which meter counts which SKU, and how many credits a unit of each is."""
        usage = self._log.usage
        return Meters(of_sku=usage.meter_of, credits_per_unit=usage.meters)

    def unplanned(self, *, after: str, rows: int, having: Having, now: datetime) -> Sequence[Unplanned]:
        """Return what is unplanned of the next linked clients."""
        usage = self._log.usage
        found: list[Unplanned] = []
        taken = 0
        for client_id in usage.clients_after(after):
            if self._client_id not in (None, client_id) or not usage.has(client_id, having, now):
                continue
            for sku, hour in usage.unplanned_of(client_id):
                row = usage.rows[client_id, sku, hour]
                found.append(
                    Unplanned(
                        client_id=client_id,
                        customer_id=usage.customers[client_id],
                        sku=sku,
                        hour=hour,
                        credits=row.credits,
                        planned=row.planned,
                        returned=row.returned,
                        returned_planned=row.returned_planned,
                    )
                )
                if len(found) == rows:
                    return found
            if (taken := taken + 1) == CLIENTS:
                break
        return found

    def customers(self, client_ids: Sequence[str]) -> Mapping[str, str]:
        """Return the present customers of those of some clients that are linked."""
        known = self._log.usage.customers
        return {client_id: known[client_id] for client_id in client_ids if client_id in known}

    def periods(self, customer_ids: Sequence[str]) -> Mapping[tuple[str, str], Sequence[KnownPeriod]]:
        """Return the known periods by (customer, meter), the oldest first."""
        known = self._log.usage.periods
        return {
            (customer_id, event_name): found
            for customer_id in customer_ids
            for event_name, found in known.get(customer_id, {}).items()
        }

    def taken(self, asked: Sequence[tuple[str, str, datetime]], *, most: int) -> list[set[datetime]]:
        """Return the minutes that increments have, from each `latest` back."""
        found = []
        for customer_id, event_name, latest in asked:
            known = self._log.minutes.get((customer_id, event_name), [])
            end = bisect_right(known, latest)
            found.append(set(known[max(0, end - most) : end]))
        return found

    def write(self, planned: Sequence[Planned]) -> None:
        """Write increments with their parts, and advance what the rows have planned."""
        log = self._log
        for one in planned:
            made = log.add(one.increment)
            self._undo.append(lambda number=made.increment_id: log.remove(number))  # type: ignore[misc]
            log.parts[made.increment_id] = one.draft.parts
            for part in one.draft.parts:
                self._advance((made.client_id, part.sku, part.hour), part.credits_to - part.credits_from)

    def to_reissue(self, *, after: int, now: datetime, most: int) -> Sequence[Increment]:
        """Return what cannot be sent as it is."""
        log = self._log
        numbers = sorted([*log.by_state[State.PENDING], *log.by_state[State.AMBIGUOUS]])
        found = (log.increments[number] for number in numbers if number > after)
        mine = (one for one in found if self._client_id in (None, one.client_id))
        return [one for one in mine if protocol.needs_reissue(one, now)][:most]

    def first_hour(self, increment_id: int) -> datetime:
        """Return the first hour of usage that an increment carries."""
        return min(part.hour for part in self._log.parts[increment_id])

    def replace(self, increment: Increment) -> None:
        """Write an increment as it is to be."""
        was = self._log.increments[increment.increment_id]
        self._log.put(increment)
        self._undo.append(lambda: self._log.restore(was))

    def undo(self) -> None:
        """Leave everything as it was."""
        for undo in reversed(self._undo):
            undo()

    def _advance(self, key: tuple[str, str, datetime], credits_: int) -> None:
        row, usage = self._log.usage.rows[key], self._log.usage

        def move(by: int, returned: int) -> None:
            row.planned += by
            row.returned_planned += returned
            usage.touched(*key)

        returned = max(0, -credits_)
        move(credits_, returned)
        self._undo.append(lambda: move(-credits_, -returned))
