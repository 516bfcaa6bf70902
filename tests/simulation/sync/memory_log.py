"""An `IncrementLog` in memory: the protocol's own decisions on dictionaries, with the rules of the tables.

What the database refuses, it refuses (`Refused`). Each method is one transaction behind one lock; a plan that does
not come to its end leaves nothing behind.
"""

from __future__ import annotations

import dataclasses
import threading
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any, Final

from billing.schema.stripe import UNITS_MAX
from billing.sinks.sink import ErrorReport, Kind, Payload
from billing.sinks.sync import afterwards, looks, protocol
from billing.sinks.sync.increment import Attempt, Increment, State
from billing.sinks.sync.log import Decide, Having, Noted, Open
from billing.sinks.sync.planning.drafts import Part
from billing.sinks.sync.planning.period_source import PeriodsFound
from billing.sinks.sync.planning.periods import closing
from tests.simulation.sync.memory_plan import MemoryPlan
from tests.simulation.sync.memory_rules import Refused, place_of, refuse_payload_change, wanted
from tests.simulation.sync.memory_usage import MemoryUsage

#: States in which an increment may still be sent.
OPEN: Final = (State.PENDING, State.SENDING, State.AMBIGUOUS)


class MemoryLog:
    """Increments, attempts, generations and reports, found by state, by place and by key."""

    def __init__(self, usage: MemoryUsage, *, lock: AbstractContextManager[Any] | None = None) -> None:
        self.usage = usage
        self.lock = threading.RLock() if lock is None else lock
        self.increments: dict[int, Increment] = {}
        self.parts: dict[int, tuple[Part, ...]] = {}
        self.attempts: dict[tuple[int, int], Attempt] = {}
        self.generations: dict[int, list[Increment]] = defaultdict(list)
        self.reports: dict[str, tuple[ErrorReport, list[int]]] = {}
        self.by_state: dict[State, dict[int, None]] = {state: {} for state in State}
        #: The minutes that increments have, or had in a generation that was given up, in order.
        self.minutes: dict[tuple[str, str], list[datetime]] = defaultdict(list)
        self._places: dict[tuple[str, str, datetime], int] = {}
        self._identifiers: dict[str, int] = {}
        self._keys: dict[str, int] = {}
        self._in_flight: dict[tuple[str, str], int] = {}
        self._open_of: dict[str, dict[int, None]] = defaultdict(dict)
        self._led = False

    # What the protocol asks for.

    @contextmanager
    def planning(self, *, client_id: str | None = None) -> Iterator[MemoryPlan | None]:
        """Begin a slice of a plan; what it wrote is undone when it raises."""
        if self._led:
            yield None
            return
        self._led = True
        plan = MemoryPlan(self, client_id)
        try:
            with self.lock:
                try:
                    yield plan
                except BaseException:
                    plan.undo()
                    raise
        finally:
            self._led = False

    def find_unread(
        self, *, now: datetime, before: datetime, most: int, meter: str, client_id: str | None = None
    ) -> list[str]:
        """Return customers with a unit of unplanned usage whose periods were not read since `before`."""
        with self.lock:
            left = [*self.by_state[State.PENDING], *self.by_state[State.AMBIGUOUS]]
            anew = {self.increments[number].client_id for number in left}
            return self.usage.unread(anew, now=now, before=before, most=most, meter=meter, client_id=client_id)

    def count_waiting(self, *, having: Having, now: datetime, client_id: str | None = None) -> Mapping[str, int]:
        """Return how many clients with unplanned usage a plan leaves out, by reason."""
        with self.lock:
            return self.usage.count_waiting(having, now=now, client_id=client_id)

    def keep_periods(self, customer_id: str, found: PeriodsFound | None, *, read_at: datetime) -> None:
        """Keep what was read of a customer; increments that are open close as `periods.closing` says."""
        with self.lock:
            changed = self.usage.keep(customer_id, found, read_at)
            for number in list(self._open_of[customer_id]) if changed else ():
                one = self.increments[number]
                if one.kind is Kind.METER_EVENT and one.event_name in changed:
                    at = closing(one.period_start, one.closes_at, changed[one.event_name], read_at)
                    if at != one.closes_at:
                        self.put(dataclasses.replace(one, closes_at=at))

    def find_lost(self, found: Open) -> list[int]:
        """Return what is `sending` without a pusher."""
        with self.lock:
            sending = (self.increments[number] for number in sorted(self.by_state[State.SENDING]))
            lost = [one.increment_id for one in sending if protocol.is_lost(one, found.now) and wanted(one, found)]
            return lost[: found.most]

    def find_open(self, found: Open) -> list[Increment]:
        """Return what may be sent, those first that were tried least."""
        with self.lock:
            states = (self.by_state[State.PENDING], self.by_state[State.AMBIGUOUS])
            open_ = (self.increments[number] for numbers in states for number in numbers)
            may = [
                one for one in open_ if protocol.may_send(one, books=found.books, now=found.now) and wanted(one, found)
            ]
            return sorted(may, key=lambda one: (protocol.is_held(one), one.attempts, one.increment_id))[: found.most]

    def find_unconfirmed(self, found: Open) -> list[Increment]:
        """Return what the sink's sums may prove, those first that were read longest ago."""
        with self.lock:
            states = (self.by_state[state] for state in (State.SENT, State.AMBIGUOUS, State.QUARANTINED))
            doubted = (self.increments[number] for numbers in states for number in numbers)
            may = [one for one in doubted if looks.may_check(one, books=found.books) and wanted(one, found)]
            may.sort(key=_read_last)
            return may[: found.most]

    def claim(self, increment_id: int, decide: Decide) -> Increment | None:
        """Take an increment for a call, and write its attempt down."""
        with self.lock:
            now = self.increments.get(increment_id)
            if now is None or now.client_id not in self.usage.customers or self.flies(now):
                return None
            taken = decide(now)
            if taken is None:
                return None
            assert taken.last_attempt_at is not None
            self.put(taken)
            self._add_attempt(
                Attempt(
                    increment_id=increment_id,
                    attempt=taken.attempts,
                    idempotency_key=taken.idempotency_key,
                    started_at=taken.last_attempt_at,
                )
            )
            return taken

    def note(self, increment_id: int, decide: Noted) -> Increment | None:
        """Note the answer to an attempt."""
        with self.lock:
            if increment_id not in self.increments:
                return None
            changed, attempt = decide(self.increments[increment_id])
            if changed is not None:
                self.put(changed)
            if attempt is not None and (increment_id, attempt.attempt) in self.attempts:
                known = self.attempts[increment_id, attempt.attempt]
                self.attempts[increment_id, attempt.attempt] = dataclasses.replace(
                    attempt, started_at=known.started_at, idempotency_key=known.idempotency_key
                )
            return self.increments[increment_id]

    def sent_before(self, increment_id: int) -> Sequence[Payload]:
        """Return the generations before its present one that were sent, where they lie elsewhere."""
        with self.lock:
            one = self.increments.get(increment_id)
            if one is None:
                return []
            keys = [self.attempts[increment_id, number].idempotency_key for number in range(1, one.attempts + 1)]
            sent = {key.partition("#")[0] for key in keys}
            first: dict[tuple[str, str, datetime], Payload] = {}
            for found in self.generations[increment_id]:
                if found.identifier in sent and place_of(found) != place_of(one):
                    first.setdefault(place_of(found), found.payload)
            return [first[place] for place in sorted(first)]

    def doubted_by(self, increment_id: int) -> str | None:
        """Return the code of a report that leaves calls open, one of which may be its own."""
        with self.lock:
            one = self.increments.get(increment_id)
            if one is None:
                return None
            calls = [self.attempts[increment_id, number] for number in range(1, one.attempts + 1)]
            open_ = [report for report, numbers in self.reports.values() if afterwards.leaves_open(report, numbers)]
            for report in sorted(open_, key=lambda report: (report.window_end, report.event_id)):
                if report.event_name in (one.event_name, "") and any(
                    afterwards.is_near(call, report) for call in calls
                ):
                    return report.code
            return None

    def change(self, increment_id: int, decide: Decide) -> Increment | None:
        """Change an increment."""
        with self.lock:
            known = self.increments.get(increment_id)
            changed = decide(known) if known is not None else None
            if changed is not None:
                self.put(changed)
            return changed

    def add_reports(self, reports: Sequence[ErrorReport], now: datetime) -> list[tuple[ErrorReport, list[int]]]:
        """Keep reports that are new."""
        del now
        with self.lock:
            added = []
            for one in reports:
                named = sorted({self._keys[key] for key in one.samples if key in self._keys})
                self.reports.setdefault(one.event_id, (one, named))
                added.append((one, named))
            return added

    def reported_until(self) -> datetime | None:
        """Return up to when reports were read."""
        with self.lock:
            return max((one.window_end for one, _ in self.reports.values()), default=None)

    # What the tables do.

    def add(self, increment: Increment) -> Increment:
        """Insert an increment; returns it with its number."""
        made = dataclasses.replace(increment, increment_id=len(self.generations) + 1)
        if not 0 < made.units <= UNITS_MAX:
            raise Refused(f"units: {made.units}")
        self._index(made)
        self.generations[made.increment_id].append(made)
        return made

    def put(self, increment: Increment) -> None:
        """Update an increment, as far as its triggers let it be."""
        was = self.increments[increment.increment_id]
        refuse_payload_change(was, increment)
        self._forget(was)
        try:
            self._index(increment)
        except Refused:
            self._index(was)
            raise
        if increment.generation != was.generation:
            self.generations[increment.increment_id].append(increment)

    def remove(self, increment_id: int) -> None:
        """Undo an insert."""
        gone = self.increments.pop(increment_id)
        self._forget(gone)
        del self._identifiers[gone.identifier], self.generations[increment_id]
        self.parts.pop(increment_id, None)

    def restore(self, increment: Increment) -> None:
        """Undo a new generation."""
        gone = self.increments[increment.increment_id]
        self._forget(gone)
        if gone.generation != increment.generation:
            self.generations[increment.increment_id].pop()
            del self._identifiers[gone.identifier]
        self._index(increment)

    def flies(self, increment: Increment) -> bool:
        """Whether anything of its customer and meter is in flight."""
        meter = increment.customer_id, increment.event_name
        return self._in_flight.get(meter, increment.increment_id) != increment.increment_id

    def _index(self, one: Increment) -> None:
        place = one.customer_id, one.event_name, one.event_at
        meter = place[:2]
        for key, has in ((place, self._places.get(place)), (one.identifier, self._identifiers.get(one.identifier))):
            if has not in (None, one.increment_id):
                raise Refused(f"{key} is of increment {has}")
        if one.state is State.SENDING:
            if self._in_flight.get(meter, one.increment_id) != one.increment_id:
                raise Refused(f"{meter}: two in flight")
            self._in_flight[meter] = one.increment_id
        self._places[place] = self._identifiers[one.identifier] = one.increment_id
        known = self.minutes[meter]
        at = bisect_right(known, one.event_at)
        if not at or known[at - 1] != one.event_at:
            known.insert(at, one.event_at)
        self.by_state[one.state][one.increment_id] = None
        if one.state in OPEN:
            self._open_of[one.customer_id][one.increment_id] = None
        self.increments[one.increment_id] = one

    def _forget(self, one: Increment) -> None:
        meter = one.customer_id, one.event_name
        self.by_state[one.state].pop(one.increment_id, None)
        self._open_of[one.customer_id].pop(one.increment_id, None)
        self._places.pop((*meter, one.event_at), None)
        if self._in_flight.get(meter) == one.increment_id:
            del self._in_flight[meter]

    def _add_attempt(self, attempt: Attempt) -> None:
        if (attempt.increment_id, attempt.attempt) in self.attempts or attempt.idempotency_key in self._keys:
            raise Refused(f"attempt {attempt.idempotency_key} is on record")
        self.attempts[attempt.increment_id, attempt.attempt] = attempt
        self._keys[attempt.idempotency_key] = attempt.increment_id


def _read_last(one: Increment) -> tuple[bool, datetime | int, int]:
    return one.checked_at is not None, one.checked_at or 0, one.increment_id
