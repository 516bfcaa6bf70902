"""Adopts what the sink has and these books do not know: as confirmed increments that carry the log's own usage (L8).

Of each place the sink's sum is held to what is known to be in it. An open increment that shows is confirmed. The units
beyond that are carried by usage that no increment carries yet, the oldest first: the planner then sends what is above.
What no usage is left for is the rest: the sink has it of rows that the log lost. The same again adopts nothing. What
moves while it is read is refused: a unit that only one of two sums has would be lost, or told twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from billing.core.clock import Clock
from billing.core.errors import Conflict
from billing.sinks.sink import MeterSink
from billing.sinks.sync import protocol
from billing.sinks.sync.increment import Increment, State
from billing.sinks.sync.log import Having, Plan
from billing.sinks.sync.planning import minutes
from billing.sinks.sync.planning.drafts import Draft, Planned, adopted, increment_of
from billing.sinks.sync.planning.places import Place
from billing.sinks.sync.planning.planner import ROWS_MAX
from billing.sinks.sync.postgres.plan import PostgresPlan
from billing.sinks.sync.resolving import Resolution
from billing.sinks.sync.restored.places import Looked, PlaceLog

#: Open increments that a person may be told of by the sums themselves.
_OPEN: Final = (State.PENDING, State.AMBIGUOUS, State.QUARANTINED, State.REJECTED)
#: Minutes that are looked through for free ones (L9).
_TAKEN_MAX: Final = 50_000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Adopted:
    """One place after it was adopted, in units.

    `shown` were found in the minutes of increments that are open here; `adopted` are carried by usage of the log; for
    what is `left` the log has none. `quarantined` increments may be among what is left.
    """

    client_id: str
    customer_id: str
    event_name: str
    period_start: datetime
    stripe: int
    known: int
    shown: int
    adopted: int
    left: int
    quarantined: int

    @property
    def says_something(self) -> bool:
        """Whether anything of it was not known here."""
        return bool(self.shown or self.adopted or self.left)


class Adopter:
    """Adopts place by place, each in one transaction; it may end anywhere and begin again."""

    def __init__(
        self,
        log: PlaceLog,
        sink: MeterSink,
        clock: Clock,
        *,
        books: str,
        reason: str,
        meter: str,
        dry_run: bool,
        ours: bool = True,
    ) -> None:
        """`ours` false: what is beyond was sent by another system, so no usage is taken for it."""
        self._log, self._sink, self._clock, self._books = log, sink, clock, books
        self._reason, self._meter, self._dry_run, self._ours = reason, meter, dry_run, ours

    def adopt(self, place: Looked) -> Adopted:
        """Adopt what the sink has in a place. Raises `Conflict` while a plan is at work, and as the sink."""
        found = self._log.increments(place, self._books)
        looked = {one.increment_id: self._look(one) for one in found if one.state is not State.CONFIRMED}
        total = self._sink.total(place.customer_id, place.event_name, *place.span)
        changed = any(
            self._look(one) != looked[one.increment_id]
            for one in found
            if looked.get(one.increment_id, one.units) < one.units
        )
        seen = [one for one in found if one.state in _OPEN and looked[one.increment_id] == one.units]
        with self._log.planning(client_id=place.client_id) as plan:
            if not isinstance(plan, PostgresPlan):
                raise Conflict(f"client: {place.client_id}: another plan is at work: try again when it has ended")
            present = self._log.increments(place, self._books)
            if changed or _told_between(found, present):
                rule = "Stripe was told of it, or its sums moved, while they were read: try again in a few minutes"
                raise Conflict(f"client: {place.client_id}: {rule}")
            # What was looked at counts as it was seen then, even if it is confirmed by now: so does the total.
            counted = sum(
                looked.get(one.increment_id, one.units if one.state is State.CONFIRMED else 0) for one in present
            )
            beyond = max(0, total - counted)
            taken = self._take(plan, place, beyond) if beyond and self._ours else []
        self._confirm(seen)
        left = beyond - sum(draft.units for draft in taken)
        doubted = [one for one in found if left and self._ours and one.state is State.PENDING and one not in seen]
        self._doubt(doubted, left)
        return Adopted(
            client_id=place.client_id,
            customer_id=place.customer_id,
            event_name=place.event_name,
            period_start=place.period.start,
            stripe=total,
            known=counted - sum(one.units for one in seen),
            shown=sum(one.units for one in seen),
            adopted=beyond - left,
            left=left,
            quarantined=len(doubted),
        )

    def adopt_items(self, client_id: str) -> int:
        """Confirm a client's open invoice items that the sink has; return how many."""
        seen = [
            one
            for one in self._log.open_items(client_id)
            if one.state in _OPEN and self._sink.shown(one.payload) == one.units
        ]
        self._confirm(seen)
        return len(seen)

    def _look(self, increment: Increment) -> int:
        """Return what shows of an increment in its own minute; not what else lies there."""
        return min(increment.units, max(0, self._sink.shown(increment.payload)))

    def _take(self, plan: PostgresPlan, place: Looked, beyond: int) -> list[Draft]:
        meters, now = plan.meters(), self._clock.now()
        rows = [
            row
            for row in plan.unplanned(after="", rows=ROWS_MAX, having=Having.NOTHING, now=now)
            if meters.of_sku.get(row.sku, self._meter) == place.event_name and row.hour < place.period.usage_end
        ]
        period = place.period
        drafts = adopted(
            rows,
            event_name=place.event_name,
            place=Place(start=period.start, end=period.end, closes_at=period.closes_at),
            credits_per_unit=meters.credits_per_unit.get(place.event_name, 1),
            most=beyond,
        )
        stamps = _stamps(plan, place, len(drafts), now)
        drafts = drafts[: len(stamps)]
        planned = [
            Planned(draft=draft, increment=self._confirmed(draft, at, now))
            for draft, at in zip(drafts, stamps, strict=True)
        ]
        if not self._dry_run:
            plan.adopt(planned, self._resolution(now))
        return drafts

    def _confirmed(self, draft: Draft, at: datetime, now: datetime) -> Increment:
        made = increment_of(draft, event_at=at, planned_at=now)
        reason = f"adopted from Stripe's sum: {self._reason}"
        return dataclasses.replace(
            made, state=State.CONFIRMED, reason=reason, sent_to=self._books, confirmed_at=now, checked_at=now
        )

    def _confirm(self, seen: Sequence[Increment]) -> None:
        for one in [] if self._dry_run else seen:
            now = self._clock.now()

            def decide(locked: Increment, now: datetime = now) -> Increment | None:
                if locked.state not in _OPEN:
                    return None
                found = protocol.resolved_as_confirmed(locked, f"Stripe has it: {self._reason}", now)
                return dataclasses.replace(found, sent_to=self._books)

            self._log.resolve(one.increment_id, decide, self._resolution(now))

    def _doubt(self, doubted: Sequence[Increment], left: int) -> None:
        reason = f"Stripe has {left:,} units of its period that these books do not know: it may be among them"
        for one in [] if self._dry_run else doubted:
            self._log.change(
                one.increment_id,
                lambda locked: (
                    dataclasses.replace(locked, state=State.QUARANTINED, reason=reason)
                    if locked.state is State.PENDING
                    else None
                ),
            )

    def _resolution(self, now: datetime) -> Resolution:
        return Resolution(resolved_as="confirmed", reason=self._reason, resolved_at=now)


def _told_between(before: Sequence[Increment], now: Sequence[Increment]) -> bool:
    """Whether a call of any increment was begun since."""
    attempts = {one.increment_id: one.attempts for one in before}
    return any(one.attempts != attempts.get(one.increment_id, 0) for one in now)


def _stamps(plan: Plan, place: Looked, count: int, now: datetime) -> list[datetime]:
    """Return free minutes of a place, however old: nothing is sent with them."""
    last = minutes.latest(place.period.start, place.period.end, now)
    if last is None or not count:
        return []
    (taken,) = plan.taken([(place.customer_id, place.event_name, last)], most=_TAKEN_MAX)
    return minutes.free(last, minutes.earliest(place.period.start), taken, count)
