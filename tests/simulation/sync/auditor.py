"""The auditor: what the stand-in has counted and billed, against what was used, and against what our log says of it.

It reads the stand-in's own memory and the increments; it asks neither of them anything that the project asks.
"""

from __future__ import annotations

import collections
import dataclasses
from typing import TYPE_CHECKING, Final

from billing.sinks.stripe.sandbox.invoicing.records import InvoiceItem
from billing.sinks.sync.increment import Increment, State
from tests.simulation.broken import LawBroken
from tests.simulation.sync import invoices
from tests.simulation.sync.population import CREDITS_PER_UNIT, METER_OF

if TYPE_CHECKING:
    from tests.simulation.sync.stage import Stage

#: States in which nothing may be counted at the stand-in, for ever.
NOWHERE: Final = (State.PENDING, State.REJECTED, State.WRITTEN_OFF)


@dataclasses.dataclass(slots=True)
class Counted:
    """What the stand-in has of one identifier."""

    units: int = 0
    times: int = 0
    was_dropped: bool = False


class Auditor:
    """Looks at a world at its checkpoints and at its end."""

    def __init__(self, world: Stage) -> None:
        self._world = world
        self.counts: collections.Counter[str] = collections.Counter()
        #: What no increment carries, in credits, by client and meter.
        self.left: collections.Counter[tuple[str, str]] = collections.Counter()

    def check(self) -> None:
        """Check what holds at any time: each credit is in one place, and nothing is counted twice for good."""
        for error in self._world.fleet.failures:
            raise LawBroken(f"L9: a task ended with {type(error).__name__}: {error}") from error
        # A lease is told by two machines' clocks: where these are wrong by more, calls may meet, and count once still.
        overlapping = self._world.server.counts["overlapping calls"]
        if overlapping and not self._world.clocks_were_wrong:
            raise LawBroken(f"two calls at once for one customer and meter: {overlapping}")
        self._credits()
        self._once_per_plan()

    def check_end(self) -> None:
        """Check what holds when all is settled."""
        self.check()
        counted = self._counted()
        self._strangers(counted)
        self._increments(counted)
        self._reported()
        self._billed(counted)
        self._planned()

    # Where each credit is (L8).

    def _credits(self) -> None:
        """Of each client and meter: increments, times the credits of a unit, and what is left, are what was used."""
        world = self._world
        carried: collections.Counter[tuple[str, str]] = collections.Counter()
        for number, one in world.log.increments.items():
            parts = world.log.parts[number]
            if sum(part.credits_to - part.credits_from for part in parts) != one.units * one.credits_per_unit:
                raise LawBroken(f"L8: increment {number} of {one.client_id} has parts of another sum than its units")
            carried[one.client_id, one.event_name] += one.units * one.credits_per_unit
        left: collections.Counter[tuple[str, str]] = collections.Counter()
        for (client_id, sku, _), row in world.usage.rows.items():
            left[client_id, METER_OF.get(sku, "credits")] += row.credits - row.planned
        self.left = left
        for key in {*world.logged, *carried, *left}:
            if carried[key] + left[key] != world.logged[key]:
                story = f"{carried[key]} carried + {left[key]} left, not the {world.logged[key]} that were used"
                raise LawBroken(f"L8: {key}: {story}")

    def _once_per_plan(self) -> None:
        """Of each client, meter, period and kind there is at most one increment in a plan."""
        plans = collections.Counter(
            (one.client_id, one.event_name, one.period_start, one.kind, one.planned_at, one.state is State.WRITTEN_OFF)
            for one in (first[0] for first in self._world.log.generations.values())
        )
        key, number = max(plans.items(), key=lambda item: item[1], default=(None, 0))
        if number > 1:
            raise LawBroken(f"one increment per plan: {number} of {key}")

    def _planned(self) -> None:
        """Of each linked client whose subscription goes on, less than one unit is left."""
        world = self._world
        for client in world.clients:
            goes_on = client.linked_ms < world.end_ms and world.account.goes_on(client.customer_id)
            for event_name, each in CREDITS_PER_UNIT.items() if goes_on else ():
                if (left := self.left[client.client_id, event_name]) >= each:
                    raise LawBroken(f"stalled: {left} credits of {client.client_id}, {event_name}, are never planned")

    # What the stand-in counts.

    def _counted(self) -> dict[str, Counted]:
        found: dict[str, Counted] = collections.defaultdict(Counted)
        store = self._world.server.state.store
        for event in invoices.events(self._world):
            one = found[event.identifier]
            one.was_dropped |= bool(event.was_dropped)
            if event.counts:
                one.times, one.units = one.times + 1, one.units + event.units
        for item in store.documents.of(InvoiceItem):
            identifier = item.details["metadata"].get("billing_identifier", "")
            one = found[identifier]
            one.times, one.units = one.times + 1, one.units + item.quantity
        return found

    def _increments(self, counted: dict[str, Counted]) -> None:
        for generations in self._world.log.generations.values():
            for one in generations:
                if not one.period_start <= one.event_at < one.period_end:
                    raise LawBroken(f"stamped {one.event_at}, outside of its period: increment {one.increment_id}")
            last = self._world.log.increments[generations[0].increment_id]
            units = sum(counted[one.identifier].units for one in generations)
            self._increment(last, units, [counted[one.identifier] for one in generations])

    def _increment(self, one: Increment, units: int, found: list[Counted]) -> None:
        """Check one increment against all that was counted of its generations."""
        self.counts[one.state.value] += 1
        what = f"increment {one.increment_id} of {one.client_id}, {one.state.value} ({one.reason})"
        if units > one.units:
            raise LawBroken(f"L8: counted twice: {units} for the {one.units} units of {what}")
        if one.state in (State.CONFIRMED, State.SENT) and units != one.units:
            raise LawBroken(f"L8: lost: {units} are counted, not the {one.units} units of {what}")
        if one.state in NOWHERE and units:
            raise LawBroken(f"L8: counted after all: {units} of {what}")
        if one.state not in (State.CONFIRMED, State.WRITTEN_OFF, State.REJECTED, State.QUARANTINED):
            if not self._may_wait(one):
                raise LawBroken(f"stalled: {what}, {one.attempts} attempts, closes {one.closes_at}")
            self.counts["waiting"] += 1
        if one.state is State.REJECTED and not self._was_dropped(found) and not self._is_broken(one):
            raise LawBroken(f"rejected without need: {what}")
        if one.state is State.QUARANTINED:
            self._quarantined(one, what, found)

    def _may_wait(self, one: Increment) -> bool:
        """Whether it waits for a subscription: its customer has none any more, or has been deleted."""
        nothing_arrived = one.state is State.PENDING or (one.state is State.AMBIGUOUS and one.absent_since is not None)
        return nothing_arrived and (self._is_broken(one) or self._has_ended(one))

    def _quarantined(self, one: Increment, what: str, found: list[Counted]) -> None:
        """Quarantine is for true doubt: the customer is gone, or what was taken was dropped later."""
        if self._is_broken(one):
            self.counts["quarantined: deleted customer"] += 1
        elif self._was_dropped(found):
            self.counts["quarantined: dropped later"] += 1
        else:
            raise LawBroken(f"quarantined without doubt: {what}; {one.generation} generations, {one.attempts} attempts")

    def _was_dropped(self, found: list[Counted]) -> bool:
        return any(one.was_dropped for one in found)

    def _is_broken(self, one: Increment) -> bool:
        customer = self._world.server.state.store.customer(one.customer_id)
        return customer is None or customer.deleted

    def _has_ended(self, one: Increment) -> bool:
        known = self._world.usage.periods.get(one.customer_id, {}).get(one.event_name, [])
        return bool(known) and known[-1].ended

    def _strangers(self, counted: dict[str, Counted]) -> None:
        """Check that the stand-in has nothing that the log does not know."""
        ours = {one.identifier for found in self._world.log.generations.values() for one in found}
        for identifier, one in counted.items():
            if one.times and identifier not in ours:
                raise LawBroken(f"L8: the stand-in counts {one.units} of {identifier!r}, which no increment is")

    def _reported(self) -> None:
        """Check that a person is told of what was reported as dropped: it is not sent again as if nothing had been.

        A report of an earlier call says nothing of a later one, which was made for want of the first; nor does one of
        an earlier generation, of which a day of looks had found nothing.
        """
        log = self._world.log
        for report, numbers in log.reports.values():
            for one in (log.increments[number] for number in numbers):
                calls = range(1, one.attempts + 1)
                keys = {f"{made.identifier}#{number}" for made in log.generations[one.increment_id] for number in calls}
                is_of_earlier = not (keys - {one.idempotency_key}).isdisjoint(report.samples)
                if one.state not in (State.REJECTED, State.QUARANTINED) and not is_of_earlier:
                    raise LawBroken(f"sent again: increment {one.increment_id}, which was reported: {report.code}")

    # What is on invoices.

    def _billed(self, counted: dict[str, Counted]) -> None:
        """Of each customer and meter: what is on invoices, or will be, is what is counted of our increments."""
        billed = invoices.billed(self._world)
        expected: collections.Counter[tuple[str, str]] = collections.Counter()
        for generations in self._world.log.generations.values():
            for one in generations:
                expected[one.customer_id, one.event_name] += counted[one.identifier].units
        for key in sorted({*billed, *expected}):
            if billed[key] != expected[key] and not self._deleted(key[0]):
                story = f"{billed[key]} are billed, {expected[key]} were counted: {self._unbilled(key)}"
                raise LawBroken(f"L8: lost: of {key} {story}")
        self.counts["units billed"] = sum(billed.values())

    def _unbilled(self, key: tuple[str, str]) -> str:
        """Name increments of a customer and meter, for whoever has to find out."""
        log = self._world.log
        own = [one for one in log.increments.values() if (one.customer_id, one.event_name) == key]
        told = [
            f"{one.increment_id}: {one.units} at {one.event_at:%d %H:%M:%S} of {one.period_start:%d %H:%M:%S}.."
            f"{one.period_end:%d %H:%M:%S}, first {one.first_attempt_at}, closes {one.closes_at} {one.state.value}"
            for one in own
        ]
        return "; ".join(told[-12:])

    def _deleted(self, customer_id: str) -> bool:
        customer = self._world.server.state.store.customer(customer_id)
        return customer is None or customer.deleted
