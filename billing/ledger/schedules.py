"""Allowances in PostgreSQL: what is granted again in each period, until it is ended.

Adding and ending one are idempotent by the caller's key. A period's grant is written by `add_grant` in the transaction
that moves `following` past it, under a key made of schedule and period: beat may run twice, at once, or late.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, Update, and_, func, insert, select, update

from billing.core.credits import check_amount
from billing.core.errors import Conflict, InvalidValue
from billing.ledger.bounds import UsedUp, nobody_asked
from billing.ledger.changes import lock_client
from billing.ledger.cycles import Cycle, Period, due_periods
from billing.ledger.grant_terms import Terms
from billing.ledger.grants import GrantRow, add_grant, check_open
from billing.ledger.keys import check_key
from billing.schema.allowances import grant_schedule

#: Open allowances of one client (L9, L10).
OF_ONE_CLIENT_MAX: Final = 16
_FIRST_PAUSE_SECONDS: Final = 60
_PAUSE_SECONDS_MAX: Final = 3_600


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleRow:
    """An allowance. `reason` says why a grant that is due could not be written, or why the allowance ended."""

    schedule_id: int
    client_id: str
    key: str
    credits: int
    kind: str
    priority: int
    skus: Sequence[str]
    every: str
    rollover: int | None
    starts_at: datetime
    ends_at: datetime | None
    state: str
    end_key: str | None
    ended_at: datetime | None
    following: int
    next_at: datetime
    failures: int
    reason: str
    created_at: datetime

    @property
    def cycle(self) -> Cycle:
        """When it is granted."""
        ends_at = None if self.ends_at is None else self.ends_at.astimezone(UTC)
        return Cycle(
            every=self.every, starts_at=self.starts_at.astimezone(UTC), ends_at=ends_at, rollover=self.rollover
        )

    def terms_of(self, period: Period) -> Terms:
        """Return the terms of a period's grant."""
        return Terms(kind=self.kind, priority=self.priority, skus=tuple(self.skus), expires_at=period.expires_at)


def key_of(schedule_id: int, period: Period) -> str:
    """Return the key of a period's grant: whoever writes it, it is the same grant."""
    return f"allowance-{schedule_id}-{period.starts_at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}"


def pause_after(failures: int) -> timedelta:
    """Return the pause after so many failures in a row: 1, 2, 4, … minutes, at most an hour."""
    return timedelta(seconds=min(_PAUSE_SECONDS_MAX, _FIRST_PAUSE_SECONDS * 2 ** min(failures - 1, 10)))


def add_schedule(
    connection: Connection,
    client_id: object,
    credits: object,
    key: object,
    *,
    cycle: Cycle,
    terms: Terms,
    now: datetime,
    any_start: bool = False,
) -> tuple[ScheduleRow, bool]:
    """Grant credits in each period from now on, and return the allowance with whether it is new.

    Periods that were over before are not granted. `terms` and `cycle` are checked ones; `any_start`: the caller named
    no start, so that the same key finds the allowance whenever it started. Raises `InvalidValue`, `UnknownClient`, or
    `Conflict` if the key was used for another allowance.
    """
    amount, checked_key = check_amount("credits", credits), check_key(key)
    checked_id = lock_client(connection, client_id)
    values: dict[str, Any] = {
        "credits": amount,
        "kind": terms.kind,
        "priority": terms.priority,
        "skus": list(terms.skus),
        **dataclasses.asdict(cycle),
    }
    same = and_(grant_schedule.c.client_id == checked_id, grant_schedule.c.key == checked_key)
    found = connection.execute(select(grant_schedule).where(same)).one_or_none()
    if found is not None:
        return _same(_schedule(found), values, any_start=any_start), False
    check_open(connection, checked_id)
    mine = select(func.count()).where(grant_schedule.c.client_id == checked_id, grant_schedule.c.state == "open")
    count = connection.execute(mine).scalar_one()
    if count >= OF_ONE_CLIENT_MAX:
        raise InvalidValue("client_id", checked_id, f"has {count} open allowances; at most {OF_ONE_CLIENT_MAX}")
    following = max(0, cycle.number_at(now))
    if not cycle.has(following):
        raise InvalidValue("ends_at", str(cycle.ends_at), "must be after the start of the present period")
    values |= {"following": following, "next_at": cycle.start_of(following)}
    made = insert(grant_schedule).values(client_id=checked_id, key=checked_key, **values).returning(*grant_schedule.c)
    return _schedule(connection.execute(made).one()), True


def end_schedule(connection: Connection, schedule_id: object, key: object, *, now: datetime) -> ScheduleRow:
    """Grant nothing more of an allowance; what it has granted stays. Raises `InvalidValue`."""
    number, checked_key = check_amount("schedule_id", schedule_id), check_key(key)
    this = grant_schedule.c.schedule_id == number
    owner = connection.execute(select(grant_schedule.c.client_id).where(this)).scalar_one_or_none()
    if owner is None:
        raise InvalidValue("schedule_id", number, "is not a known allowance (see: billing allowance list)")
    lock_client(connection, owner)
    found = _schedule(connection.execute(select(grant_schedule).where(this)).one())
    if found.state == "ended":
        if found.end_key != checked_key:
            raise InvalidValue("schedule_id", number, f"has ended already: {found.reason}")
        return found
    values = {"state": "ended", "end_key": checked_key, "ended_at": now, "reason": "it was ended"}
    return _schedule(connection.execute(_change(number, values).returning(*grant_schedule.c)).one())


def schedules(
    connection: Connection, *, client_id: str | None = None, ended: bool = False, limit: int = 100
) -> Sequence[ScheduleRow]:
    """Return the newest allowances, of one client or of all; `ended`: also those that have."""
    wanted = select(grant_schedule).order_by(grant_schedule.c.schedule_id.desc()).limit(limit)
    if client_id is not None:
        wanted = wanted.where(grant_schedule.c.client_id == client_id)
    if not ended:
        wanted = wanted.where(grant_schedule.c.state == "open")
    return [_schedule(row) for row in connection.execute(wanted)]


def due_schedules(connection: Connection, now: datetime, limit: int) -> Sequence[tuple[int, str]]:
    """Return the number and client of at most `limit` allowances that are to be looked at, the longest due first."""
    due = and_(grant_schedule.c.state == "open", grant_schedule.c.next_at <= now)
    columns = (grant_schedule.c.schedule_id, grant_schedule.c.client_id)
    found = select(*columns).where(due).order_by(grant_schedule.c.next_at, grant_schedule.c.schedule_id).limit(limit)
    return [(row.schedule_id, row.client_id) for row in connection.execute(found)]


def grant_due(
    connection: Connection, schedule_id: int, client_id: str, now: datetime, used_up: UsedUp = nobody_asked
) -> Sequence[GrantRow]:
    """Write the next grant that an allowance is due for, if any, and move it on; return it if it is new.

    One at a time: a client that takes no more keeps those that it could take. Under the client's row lock, so that of
    two who do it at once the second one finds nothing due. `used_up` is as in `add_grant`.
    """
    lock_client(connection, client_id)
    due = and_(
        grant_schedule.c.schedule_id == schedule_id, grant_schedule.c.state == "open", grant_schedule.c.next_at <= now
    )
    row = connection.execute(select(grant_schedule).where(due).with_for_update()).one_or_none()
    if row is None:
        return []
    found = _schedule(row)
    periods, following = due_periods(found.cycle, found.following, now, most=1)
    made = []
    for period in periods:
        key, terms = key_of(schedule_id, period), found.terms_of(period)
        reason = f"allowance {schedule_id}"
        grant, created = add_grant(
            connection, client_id, found.credits, key, reason=reason, terms=terms, used_up=used_up
        )
        made += [grant] if created else []
    values: dict[str, Any] = {"following": following, "failures": 0, "reason": ""}
    if found.cycle.has(following):
        values["next_at"] = found.cycle.start_of(following)
    else:
        values |= {"state": "ended", "ended_at": now, "reason": "its last period has begun"}
    connection.execute(_change(schedule_id, values))
    return made


def put_off(connection: Connection, schedule_id: int, reason: str, now: datetime) -> None:
    """Note why the grant that is due could not be written, and look again after a pause that grows, up to an hour."""
    mine = select(grant_schedule.c.failures).where(grant_schedule.c.schedule_id == schedule_id)
    failures = connection.execute(mine.with_for_update(skip_locked=True)).scalar_one_or_none()
    if failures is not None:  # else somebody is about to change it
        values = {"failures": failures + 1, "reason": reason, "next_at": now + pause_after(failures + 1)}
        connection.execute(_change(schedule_id, values).where(grant_schedule.c.next_at <= now))


def _change(schedule_id: int, values: dict[str, Any]) -> Update:
    this = and_(grant_schedule.c.schedule_id == schedule_id, grant_schedule.c.state == "open")
    return update(grant_schedule).where(this).values(values)


def _same(found: ScheduleRow, values: dict[str, Any], *, any_start: bool) -> ScheduleRow:
    for name, value in values.items():
        if getattr(found, name) != value and not (any_start and name == "starts_at"):
            rule = f"was used for an allowance with {name} {getattr(found, name)}, so it cannot be one with {value}"
            raise Conflict(f"key: {found.key!r}: {rule}")
    return found


def _schedule(row: Row[*tuple[Any, ...]]) -> ScheduleRow:
    return ScheduleRow(**row._mapping)  # noqa: SLF001 - SQLAlchemy's documented way to a row's mapping
