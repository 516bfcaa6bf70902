"""An increment: what is meant to be sent, and how it stands. A value; the decisions about it are in `protocol.py`."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from enum import Enum

from billing.sinks.sink import Answer, Kind, Payload, Reply


class State(Enum):
    """The states of an increment, as `stripe_increment.state` has them."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    CONFIRMED = "confirmed"
    #: It may have arrived.
    AMBIGUOUS = "ambiguous"
    #: Definitely not counted: refused for its content, or dropped after it was taken.
    REJECTED = "rejected"
    #: Nobody can tell without a person.
    QUARANTINED = "quarantined"
    #: Never to be billed: by the policy for late usage, or by a person.
    WRITTEN_OFF = "written_off"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Increment:
    """One increment, whole. What the identifier covers changes only with the generation (`protocol.reissued`).

    Its parts carry `units` times `credits_per_unit` credits. No attempt begins at or after `closes_at`, when the
    invoice of its period may be final; None: not known to close.
    """

    increment_id: int
    client_id: str
    customer_id: str
    event_name: str
    kind: Kind
    period_start: datetime
    period_end: datetime
    units: int
    credits_per_unit: int
    generation: int
    event_at: datetime
    identifier: str
    planned_at: datetime
    #: The first hour before its period of which it carries anything.
    carries_from: datetime | None = None

    state: State = State.PENDING
    reason: str = ""
    closes_at: datetime | None = None
    attempts: int = 0
    #: Of this generation, and None again when it is known that nothing of it arrived.
    first_attempt_at: datetime | None = None
    last_attempt_at: datetime | None = None
    #: Whose books its attempts went to (a kind of key); None before the first of this generation.
    sent_to: str | None = None
    lease_until: datetime | None = None
    checked_at: datetime | None = None
    #: Since when each look has found nothing of it, and how many looks prove that: the first, and those a day later.
    absent_since: datetime | None = None
    absence_checks: int = 0
    confirmed_at: datetime | None = None
    #: When the sink had answered that it is to take this generation back, since the one before is counted as well.
    withdrawn_at: datetime | None = None

    @property
    def payload(self) -> Payload:
        """What a sink is told of it."""
        return Payload(
            kind=self.kind,
            identifier=self.identifier,
            event_name=self.event_name,
            customer_id=self.customer_id,
            units=self.units,
            event_at=self.event_at,
            period_start=self.period_start,
            period_end=self.period_end,
        )

    @property
    def idempotency_key(self) -> str:
        """The key of its latest attempt: a fresh one for each, on record before the call."""
        return f"{self.identifier}#{self.attempts}"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One call, as `stripe_attempt` has it; `outcome` is None while it is not known: it may have been made."""

    increment_id: int
    attempt: int
    idempotency_key: str
    started_at: datetime
    finished_at: datetime | None = None
    outcome: Answer | None = None
    http_status: int | None = None
    request_id: str | None = None
    reason: str = ""


def attempt_of(increment: Increment, reply: Reply, now: datetime) -> Attempt:
    """Return the latest attempt of an increment with its answer, which came `now`."""
    return Attempt(
        increment_id=increment.increment_id,
        attempt=increment.attempts,
        idempotency_key=increment.idempotency_key,
        started_at=increment.last_attempt_at or now,
        finished_at=now,
        outcome=reply.answer,
        http_status=reply.http_status,
        request_id=reply.request_id,
        reason=reply.reason,
    )
