"""What a reading of the fleet says: plain, frozen, with ages in seconds, so that a page, a metric and JSON agree.

No credit balances by client are here but those that were asked for by name: the whole fleet has counts and sums.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime

from billing.observability.doctor.finding import Finding
from billing.observability.liveness.seen import LastSeen


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class QueueState:
    """A usage queue: messages that nobody has received, and who is subscribed. None: this broker does not say."""

    name: str
    number: int
    events: int
    consumers: int | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LawState:
    """How a law's last check came out, by whichever check looked last. `checked_at` None: never."""

    law: str
    checked_at: datetime | None
    examined: int
    violations: int
    found: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class IncrementsState:
    """Increments of one state: how many, their units, and when the oldest was planned.

    Where `exact` is false the count is PostgreSQL's estimate, and units and age were not read: it is the long history
    of what is confirmed.
    """

    state: str
    count: int
    units: int | None
    oldest_at: datetime | None
    exact: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Outbox:
    """Usage events that the broker has not confirmed, over all shards."""

    events: int
    oldest_seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Holds:
    """Reservations that are held, over all shards. `overdue_seconds`: how far the longest is past its lease; or 0.

    `credits` None: they were not read. Where `whole` is false there are more holds than are read: it is at least that.
    """

    count: int
    credits: int | None
    overdue_seconds: float
    whole: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FleetState:
    """One reading of the whole fleet. A part that did not answer is None; `findings` has the reason.

    `servers`: which answer, by their names in the metrics; one that nothing is known of yet, or that is not used, is
    not in it. Counts of PostgreSQL end at 100,000. `unplanned`: usage of linked clients that the next plan may carry.
    """

    taken_at: datetime
    findings: tuple[Finding, ...]
    servers: Mapping[str, bool]
    outbox: Outbox | None
    holds: Holds | None
    recovering_shards: int | None
    queues: tuple[QueueState, ...] | None
    seen: tuple[LastSeen, ...] | None
    laws: tuple[LawState, ...] | None
    dead_letters: int | None
    parked_tasks: int | None
    parked_oldest_at: datetime | None
    unplanned_credits: int | None
    unplanned_oldest_at: datetime | None
    increments: tuple[IncrementsState, ...] | None
    last_planned_at: datetime | None
    last_sent_at: datetime | None
    last_confirmed_at: datetime | None
    log_last_at: datetime | None
    months_ahead: int | None
    deliveries: int | None
    #: Whether the end of the history was read: then `log_last_at` None says that it is empty.
    log_read: bool = True
