"""What every sink of usage sums promises: Stripe's meter events are the first one, not the only one.

A sink takes increments that are already written down (L8): it is told an identifier that covers all that it is told,
and must count one identifier at most once for at least a day, so that an answer that was lost can be asked for again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import datetime
from enum import Enum
from typing import Protocol


class Answer(Enum):
    """What a sink's answer to one call means."""

    TAKEN = "taken"
    #: It has the identifier already: an earlier call arrived.
    DUPLICATE = "duplicate"
    #: Not executed, and never will be: too many calls at once, or nobody listened.
    BUSY = "busy"
    UNREACHED = "unreached"
    #: Refused for its content; nothing was recorded by this call.
    REFUSED = "refused"
    #: Who calls may not, or not with this configuration: every other call would end the same way.
    FORBIDDEN = "forbidden"
    #: It may have been executed: no answer, or an answer that does not say.
    UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """A sink's answer with what it said. `reason` is one line, without secrets."""

    answer: Answer
    http_status: int | None = None
    request_id: str | None = None
    reason: str = ""
    #: Nobody answered at all: a connection was refused or lost, or a wait ran out.
    silent: bool = False


class Kind(Enum):
    """How an increment reaches the invoice. The value is `stripe_increment.kind`."""

    #: A meter event of its period.
    METER_EVENT = "meter_event"
    #: A line of its own on the next invoice: usage of a period whose invoice is final already.
    INVOICE_ITEM = "invoice_item"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Payload:
    """What a sink is told of an increment. `units` are whole units of the meter. Of an invoice item, the period too."""

    kind: Kind = Kind.METER_EVENT
    identifier: str
    event_name: str
    customer_id: str
    units: int
    event_at: datetime
    period_start: datetime | None = None
    period_end: datetime | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ErrorReport:
    """One kind of error that the sink reports after it had answered that it took something.

    `samples` are idempotency keys of some of the calls that it is about: `count` may exceed them.
    """

    event_id: str
    event_name: str
    code: str
    count: int
    window_start: datetime
    window_end: datetime
    samples: tuple[str, ...]


class MeterSink(Protocol):
    """Takes increments, and says afterwards what it has counted. One belongs to one thread."""

    #: Where it is, as it may be shown.
    where: str

    def check(self, event_name: str) -> None:
        """Raise `Fatal` when the meter would not count what it is sent, `Unreachable` when nobody answers."""
        ...

    def send(self, payload: Payload, *, idempotency_key: str) -> Reply:
        """Send one increment once. Never raises for what the other side did."""
        ...

    def shown(self, payload: Payload) -> int:
        """Return the units that the sink shows for this one increment: those of its own minute, or of its item.

        Raises `Unreachable`, `Fatal`, and `Rejected` for what concerns this customer alone.
        """
        ...

    def total(self, customer_id: str, event_name: str, start: datetime, end: datetime) -> int:
        """Return the units that the sink has counted for a customer in [start, end), whole minutes in UTC."""
        ...

    def withdraw(self, payload: Payload, *, idempotency_key: str) -> Reply:
        """Take back a meter event that was counted a second time, by its identifier, within a day of its receipt."""
        ...

    def error_reports(self, since: datetime) -> Iterator[ErrorReport]:
        """Yield what the sink reports of calls that it had answered, the oldest first. Raises as `shown`."""
        ...

    def close(self) -> None:
        """Close its connections."""
        ...
