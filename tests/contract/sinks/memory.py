"""The plainest sink there is: a list of events behind it. It shows that the suite asks for nothing of Stripe's.

Its steps are methods, so that `test_suite.py` can break each.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from billing.core.errors import Fatal, Rejected, Unreachable
from billing.schema.stripe import UNITS_MAX
from billing.sinks.sink import Answer, ErrorReport, Kind, MeterSink, Payload, Reply
from tests.contract.sinks.place import KEY, MINUTE, NOON

DAY: Final = timedelta(days=1)
AGE_MAX: Final = timedelta(days=35)
#: Faults after which nothing is known, and whether the event was counted.
UNKNOWN: Final = {"drop": False, "error": False, "commit_then_close": True, "commit_then_error": True}
DROPPED: Final = "meter_event_customer_not_found"


@dataclasses.dataclass(kw_only=True, slots=True)
class Event:
    """An event that was taken."""

    payload: Payload
    key: str
    received_at: datetime
    counts: bool = True


class MemorySink:
    """A sink of a `MemoryPlace`."""

    where = "memory"

    def __init__(self, place: MemoryPlace, key: str) -> None:
        self.place, self._key = place, key

    def check(self, event_name: str) -> None:
        """Raise when the meter is not there."""
        self.reach()
        if event_name != self.place.event_name:
            raise Fatal(f"memory: {event_name!r}: is no meter")

    def send(self, payload: Payload, *, idempotency_key: str) -> Reply:  # noqa: PLR0911 - one for each answer
        """Count an increment once."""
        if not self.place.is_up:
            return Reply(answer=Answer.UNREACHED, reason="does not answer", silent=True)
        if self._key != KEY:
            return Reply(answer=Answer.FORBIDDEN, http_status=401, reason="refuses the key")
        fault, self.place.next_fault = self.place.next_fault, None
        if fault in {"rate_limit", "conflict"}:
            return Reply(answer=Answer.BUSY, http_status=429, reason="too many calls")
        if fault is not None and not UNKNOWN[fault]:
            return self.unknown()
        if self.refuses(payload):
            return self.refused()
        if self.knows(payload):
            return self.duplicate(payload)
        self.keep(payload, idempotency_key)
        if fault is not None:
            return self.unknown()
        return Reply(answer=Answer.TAKEN, http_status=200)

    def shown(self, payload: Payload) -> int:
        """Return the units of an increment's own minute, or of its item."""
        if payload.kind is Kind.INVOICE_ITEM:
            self.reach()
            own = (event for event in self.place.events if event.payload.identifier == payload.identifier)
            return sum(event.payload.units for event in own if event.counts)
        minute = payload.event_at.replace(second=0)
        return self.total(payload.customer_id, payload.event_name, minute, minute + MINUTE)

    def total(self, customer_id: str, event_name: str, start: datetime, end: datetime) -> int:
        """Return the units of a customer in [start, end)."""
        self.reach()
        if customer_id not in self.place.customers:
            raise Rejected(f"memory: {customer_id}: no such customer")
        return sum(
            event.payload.units
            for event in self.place.events
            if (event.payload.customer_id, event.payload.event_name) == (customer_id, event_name)
            and event.payload.kind is Kind.METER_EVENT
            and self.inside(event, start, end)
            and event.counts
            and event.received_at + self.place.lag_by <= self.place.now()
        )

    def withdraw(self, payload: Payload, *, idempotency_key: str) -> Reply:
        """Let an event count no more."""
        del idempotency_key
        for event in self.place.events:
            if event.payload.identifier == payload.identifier and self.place.now() - event.received_at < DAY:
                event.counts = False
                return Reply(answer=Answer.TAKEN, http_status=200)
        return Reply(answer=Answer.REFUSED, http_status=400, reason="no such event")

    def error_reports(self, since: datetime) -> Iterator[ErrorReport]:
        """Yield a report for each event that was dropped."""
        self.reach()
        for number, event in enumerate(self.place.dropped):
            if event.received_at >= since:
                window = {"window_start": event.received_at, "window_end": event.received_at + MINUTE}
                name = event.payload.event_name
                yield ErrorReport(
                    event_id=f"evt_{number}", event_name=name, code=DROPPED, count=1, samples=(event.key,), **window
                )

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def reach(self) -> None:
        """Raise when nobody listens, or the key is wrong."""
        if not self.place.is_up:
            raise Unreachable("memory: does not answer")
        if self._key != KEY:
            raise Fatal("memory: refuses the key")

    def refuses(self, payload: Payload) -> bool:
        """Whether it refuses an increment for its content."""
        old = payload.event_at < self.place.now() - AGE_MAX
        return payload.event_name != self.place.event_name or payload.units > UNITS_MAX or old

    def knows(self, payload: Payload) -> bool:
        """Whether it has the identifier."""
        return any(event.payload.identifier == payload.identifier for event in self.place.events)

    def keep(self, payload: Payload, key: str) -> None:
        """Take an event; one of a customer that is gone is dropped later."""
        event = Event(payload=payload, key=key, received_at=self.place.now())
        if payload.customer_id not in self.place.customers:
            event.counts = False
            self.place.dropped.append(event)
        self.place.events.append(event)

    def inside(self, event: Event, start: datetime, end: datetime) -> bool:
        """Whether an event is in [start, end)."""
        return start <= event.payload.event_at < end

    def duplicate(self, payload: Payload) -> Reply:
        """Answer what it has already."""
        return Reply(answer=Answer.DUPLICATE, http_status=400, reason=f"knows {payload.identifier}")

    def refused(self) -> Reply:
        """Answer what it refuses."""
        return Reply(answer=Answer.REFUSED, http_status=400, reason="is refused")

    def unknown(self) -> Reply:
        """Answer nothing that says what became of it."""
        return Reply(answer=Answer.UNKNOWN, reason="no answer came", silent=True)


class MemoryPlace:
    """A place in memory; `kind` is the sink that reports to it."""

    event_name = "credits"

    def __init__(self, kind: type[MemorySink] = MemorySink) -> None:
        self._kind, self._now, self._numbers = kind, NOON, itertools.count(1)
        self.events: list[Event] = []
        self.dropped: list[Event] = []
        self.customers: set[str] = set()
        self.lag_by, self.is_up = timedelta(), True
        self.next_fault: str | None = None

    def sink(self, *, key: str = KEY) -> MeterSink:
        """Make a sink."""
        return self._kind(self, key)

    def sink_without_server(self) -> MeterSink:
        """Make a sink that reaches nobody."""
        nowhere = MemoryPlace(self._kind)
        nowhere.is_up = False
        return nowhere.sink()

    def customer(self) -> str:
        """Make a customer."""
        self.customers.add(made := f"cus_{next(self._numbers)}")
        return made

    def delete(self, customer_id: str) -> None:
        """Delete a customer."""
        self.customers.discard(customer_id)

    def now(self) -> datetime:
        """Return its time."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """Move it on."""
        self._now += by

    def lag(self, by: timedelta) -> None:
        """Let what is sent show later."""
        self.lag_by = by

    def fault(self, kind: str) -> None:
        """Let the next call that sends fail."""
        self.next_fault = kind

    def close(self) -> None:
        """Do nothing: there is nothing open."""
