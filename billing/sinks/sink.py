"""What every sink of usage sums promises: Stripe's meter events are the first one, not the only one.

A sink takes increments that are already written down (L8): it is told an identifier that covers all that it is told,
and must count one identifier at most once for at least a day, so that an answer that was lost can be asked for again.
"""

from __future__ import annotations

import dataclasses
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


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Payload:
    """What a sink is told of an increment. `units` are whole credits."""

    identifier: str
    event_name: str
    customer_id: str
    units: int
    event_at: datetime


class Sink(Protocol):
    """Takes increments, and says afterwards what it has counted. One belongs to one thread."""

    #: Where it is, as it may be shown.
    where: str

    def check(self) -> None:
        """Raise `Fatal` when the sink would not count what it is sent, `Unreachable` when it does not answer."""
        ...

    def send(self, payload: Payload, *, idempotency_key: str) -> Reply:
        """Send one increment once. Never raises for what the other side did."""
        ...

    def total(self, customer_id: str, start: datetime, end: datetime) -> int:
        """Return the units that the sink has counted for a customer in [start, end), whole minutes in UTC."""
        ...

    def close(self) -> None:
        """Close its connections."""
        ...
