"""How the report to Stripe stands: every credit of the log is planned, or waits for something that is named (L8)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection

from billing.core.settings import Settings
from billing.schema.stripe import STATES
from billing.sinks.sync.postgres.rows import NAMES, increment_of
from billing.sinks.sync.telling import status_statements as sql
from billing.sinks.sync.telling.next_step import next_step

#: How long after its plan, or after it was sent, an increment may be without an answer or a proof.
_PATIENCE: Final = timedelta(days=1)
#: How long error reports that name no increment are shown: Stripe keeps them as long.
_REPORTS_SHOWN: Final = timedelta(days=30)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StateSum:
    """The increments of one state, of one meter or of all. `oldest` is when the first of them was planned."""

    state: str
    increments: int = 0
    units: int = 0
    clients: int = 0
    oldest: datetime | None = None
    #: What the units are in credits.
    credits: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MeterSum:
    """The increments of one meter, by state; states without any are left out."""

    event_name: str
    states: tuple[StateSum, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """Credits that wait, the first of the clients that used them or had them returned, and why, where it is known."""

    credits: int = 0
    clients: int = 0
    names: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Concern:
    """An increment that a person should look at, with why, and what to do next."""

    increment_id: int
    client_id: str
    units: int
    state: str
    reason: str
    next: str
    command: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Unmatched:
    """An error report of Stripe's that is about no call of ours that is on record."""

    event_id: str
    event_name: str
    code: str
    count: int
    window_end: datetime


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Last:
    """When anything was last planned, sent, looked at; up to when Stripe's last error report was. None: never."""

    planned_at: datetime | None = None
    sent_at: datetime | None = None
    checked_at: datetime | None = None
    reported_at: datetime | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SyncStatus:
    """The states in the order of their life, then what is not in any increment, by what it waits for.

    `unplanned`: the next plan. `unlinked`: a customer. `unbilled`: a billing period, since Stripe has none for the
    customer. `remainder`: more usage, being less than one unit. `carried`: the same, since corrections returned more
    than was used; what a client uses next is reported less by as much. `late` is usage of earlier periods that
    increments of present ones carry. `concerned` increments are for a person; `concerns` are the first of them.
    """

    states: tuple[StateSum, ...]
    meters: tuple[MeterSum, ...]
    unplanned: Waiting
    unlinked: Waiting
    unbilled: Waiting
    remainder: Waiting
    carried: Waiting
    late: Waiting
    concerned: int
    concerns: tuple[Concern, ...]
    unmatched: int
    unmatched_reports: tuple[Unmatched, ...]
    last: Last

    def units(self, *states: str) -> int:
        """Return the units of increments in some states (none named: in all)."""
        return sum(found.units for found in self.states if not states or found.state in states)


def read_status(connection: Connection, now: datetime, settings: Settings, *, only_open: bool = False) -> SyncStatus:
    """Read how the report stands.

    `only_open`: increments that wait for nobody are not counted, nor are clients; it takes as long in a long history.
    """
    rows = connection.execute(sql.OPEN_STATES if only_open else sql.STATES).all()
    clients = {} if only_open else {row[0]: row[1] for row in connection.execute(sql.CLIENTS)}
    counted = {"meter": settings.stripe_meter, "subscribed": settings.stripe_periods == "subscription"}
    waiting = {row.why: _waiting(row) for row in connection.execute(sql.WAITING, counted)}
    late = _waiting(connection.execute(sql.LATE, {"now": now}).one())
    given = {"patience": _PATIENCE, "long_ago": now - _PATIENCE, "names": sql.NAMES}
    concerns = connection.execute(sql.CONCERNS, given).mappings().all()
    shown = {"since": now - _REPORTS_SHOWN, "names": sql.NAMES}
    unmatched = [dict(row) for row in connection.execute(sql.UNMATCHED, shown).mappings()]
    # One number, in each of the rows.
    reports = [row.pop("reports") for row in unmatched]
    nothing = Waiting()
    return SyncStatus(
        states=tuple(_sum(state, [row for row in rows if row.state == state], clients) for state in STATES),
        meters=tuple(_meter(name, rows) for name in sorted({row.event_name for row in rows})),
        unplanned=waiting.get("unplanned", nothing),
        unlinked=waiting.get("unlinked", nothing),
        unbilled=waiting.get("unbilled", nothing),
        remainder=waiting.get("remainder", nothing),
        carried=waiting.get("carried", nothing),
        late=late,
        concerned=max((row["concerned"] for row in concerns), default=0),
        concerns=tuple(_concern(row, now) for row in concerns),
        unmatched=max(reports, default=0),
        unmatched_reports=tuple(Unmatched(**row) for row in unmatched),
        last=Last(
            planned_at=_latest(row.planned_at for row in rows),
            sent_at=_latest(row.sent_at for row in rows),
            checked_at=_latest(row.checked_at for row in rows),
            reported_at=connection.execute(sql.LAST_REPORT).scalar_one(),
        ),
    )


def _sum(state: str, rows: Iterable[Any], clients: dict[str, int]) -> StateSum:
    found = list(rows)
    return StateSum(
        state=state,
        increments=sum(row.increments for row in found),
        units=sum(row.units for row in found),
        clients=clients.get(state, 0),
        oldest=min((row.oldest for row in found), default=None),
        credits=sum(int(row.credits) for row in found),
    )


def _meter(event_name: str, rows: Iterable[Any]) -> MeterSum:
    own = {row.state: row for row in rows if row.event_name == event_name}
    states = (_sum(state, [own[state]], {state: own[state].clients}) for state in STATES if state in own)
    return MeterSum(event_name=event_name, states=tuple(states))


def _waiting(row: Any) -> Waiting:
    reasons = tuple(getattr(row, "reasons", None) or ())
    return Waiting(credits=row.credits, clients=row.clients, names=tuple(row.names or ()), reasons=reasons)


def _concern(row: Any, now: datetime) -> Concern:
    increment = increment_of({name: row[name] for name in NAMES})  # type: ignore[arg-type]
    step = next_step(increment, now)
    return Concern(
        increment_id=increment.increment_id,
        client_id=increment.client_id,
        units=increment.units,
        state=increment.state.value,
        reason=row["why"],
        next=step.what,
        command=step.command,
    )


def _latest(instants: Iterable[datetime | None]) -> datetime | None:
    return max((instant for instant in instants if instant is not None), default=None)
