"""What changes a client's credits or its standing besides grants: voids, adjustments, state, overdraft limit.

A change is written before any bucket knows it, and `applied_at` is set once the bucket has it: one whose maker died
half way is found and applied by anybody (`unapplied`). Idempotent by the caller's key; the same key with other content
is a `Conflict` that names both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ARRAY, Connection, Row, Text, and_, any_, func, insert, literal, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from billing.core.credits import NO_GRANT, check_amount
from billing.core.errors import Conflict, InvalidValue, UnknownClient
from billing.core.identifiers import check_client_id
from billing.ledger.bounds import check_adjustment
from billing.ledger.keys import check_key
from billing.ledger.turns import in_turn
from billing.schema.allowances import grant_schedule
from billing.schema.corrections import usage_correction
from billing.schema.tables import client, client_change, credit_grant, ledger_entry

STATES: Final = ("active", "suspended", "closed")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ChangeRow:
    """A change of a client. `applied_at` is None until the bucket in Redis has it."""

    change_id: int
    client_id: str
    kind: str
    grant_id: int | None
    credits: int | None
    state: str | None
    key: str
    reason: str
    created_at: datetime
    applied_at: datetime | None

    def __str__(self) -> str:
        return _said(self.kind, self.grant_id, self.credits, self.state)


def _said(kind: str, grant_id: int | None, credits_: int | None, state: str | None) -> str:
    match kind:
        case "void":
            return f"a void of grant {grant_id}"
        case "adjust":
            return f"an adjustment by -{credits_}"
        case "state":
            return f"the state {state}"
        case _:
            return f"an overdraft limit of {credits_}"


def void_grant(connection: Connection, grant_id: object, key: object, *, reason: str = "") -> tuple[ChangeRow, bool]:
    """Take a grant back as of now: it pays nothing more; its holds keep what they were lent."""
    number = check_amount("grant_id", grant_id)
    owner = select(credit_grant.c.client_id).where(credit_grant.c.grant_id == number)
    client_id = connection.execute(owner).scalar_one_or_none()
    if client_id is None:
        raise InvalidValue("grant_id", number, "is not a known grant (see: billing client show)")
    lock_client(connection, client_id)
    row, created = _add(connection, client_id, key, reason, kind="void", grant_id=number)
    if created:
        open_ = and_(credit_grant.c.grant_id == number, credit_grant.c.voided_at.is_(None))
        if not connection.execute(update(credit_grant).where(open_).values(voided_at=row.created_at)).rowcount:
            raise InvalidValue("grant_id", number, "is voided already, under another key")
    return row, created


def take_credits(
    connection: Connection, client_id: object, credits: object, key: object, *, reason: str = ""
) -> tuple[ChangeRow, bool]:
    """Take credits away from a client as a correction; what it does not have becomes debt.

    Raises `InvalidValue` where that debt could lift the client's sums above 2^53 - 1.
    """
    amount = check_amount("credits", credits)
    checked_id = lock_client(connection, client_id)
    return _add(connection, checked_id, key, reason, kind="adjust", credits=amount)


def set_state(
    connection: Connection, client_id: object, state: str, key: object, *, reason: str = ""
) -> tuple[ChangeRow, bool]:
    """Let a client work (active), or reserve nothing (suspended), nor be granted anything either (closed).

    Closing ends the client's allowances for good; a suspended client's go on.
    """
    if state not in STATES:
        raise InvalidValue("state", state, f"must be one of {', '.join(STATES)}")
    checked_id = lock_client(connection, client_id)
    row, created = _add(connection, checked_id, key, reason, kind="state", state=state)
    if created:
        connection.execute(update(client).where(client.c.client_id == checked_id).values(state=state))
    if created and state == "closed":
        open_ = and_(grant_schedule.c.client_id == checked_id, grant_schedule.c.state == "open")
        ended = {"state": "ended", "ended_at": row.created_at, "reason": "the client was closed"}
        connection.execute(update(grant_schedule).where(open_).values(ended))
    return row, created


def set_overdraft(
    connection: Connection, client_id: object, limit: object, key: object, *, reason: str = ""
) -> tuple[ChangeRow, bool]:
    """Let a client owe up to so many credits."""
    amount = check_amount("overdraft_limit", limit, minimum=0)
    checked_id = lock_client(connection, client_id)
    row, created = _add(connection, checked_id, key, reason, kind="overdraft", credits=amount)
    if created:
        connection.execute(update(client).where(client.c.client_id == checked_id).values(overdraft_limit=amount))
    return row, created


def lock_client(connection: Connection, client_id: object) -> str:
    """Lock a client's row, so that two changes of one client see each other. Raises `UnknownClient`."""
    checked_id = check_client_id(client_id)
    locked = select(client.c.client_id).where(client.c.client_id == checked_id).with_for_update(key_share=True)
    if connection.execute(locked).one_or_none() is None:
        raise UnknownClient(checked_id)
    return checked_id


def unapplied(connection: Connection, limit: int) -> Sequence[ChangeRow]:
    """Return at most `limit` changes that the buckets do not have yet, the oldest of each shard first (L10)."""
    return [_change(row) for row in connection.execute(in_turn(client_change, client_change.c.change_id, limit))]


def mark_applied(connection: Connection, change_id: int) -> None:
    """Note that the bucket has the change. Idempotent: the first time stays."""
    waiting = and_(client_change.c.change_id == change_id, client_change.c.applied_at.is_(None))
    connection.execute(update(client_change).where(waiting).values(applied_at=func.now()))


def enter_adjustment(connection: Connection, client_id: str, change_id: int, grants: Mapping[int, int]) -> None:
    """Enter what an adjustment took from each grant (0: it became debt), once, and note that it is applied."""
    rows = [
        {
            "client_id": client_id,
            "grant_id": grant_id if grant_id != NO_GRANT else None,
            "kind": "adjust",
            "credits": -part,
            "change_id": change_id,
        }
        for grant_id, part in grants.items()
    ]
    open_ = select(client_change.c.change_id).where(
        client_change.c.change_id == change_id, client_change.c.applied_at.is_(None)
    )
    if connection.execute(open_.with_for_update()).one_or_none() is not None:
        connection.execute(upsert(ledger_entry).on_conflict_do_nothing(), rows)
        mark_applied(connection, change_id)


def _add(
    connection: Connection,
    client_id: str,
    key: object,
    reason: str,
    *,
    kind: str,
    grant_id: int | None = None,
    credits: int | None = None,
    state: str | None = None,
) -> tuple[ChangeRow, bool]:
    """Write a change of a client whose row is locked, or return the one that its key made before."""
    checked = check_key(key)
    same = and_(client_change.c.client_id == client_id, client_change.c.key == checked)
    values: dict[str, Any] = {"kind": kind, "grant_id": grant_id, "credits": credits, "state": state}
    asked = _said(kind, grant_id, credits, state)
    row = connection.execute(select(client_change).where(same)).one_or_none()
    if row is not None:
        found = _change(row)
        if any(getattr(found, name) != value for name, value in values.items()):
            raise Conflict(f"key: {checked!r}: was used for {found}, so it cannot be {asked}")
        return found, False
    granted = and_(credit_grant.c.client_id == client_id, credit_grant.c.key == checked)
    amount = connection.execute(select(credit_grant.c.credits).where(granted)).scalar_one_or_none()
    if amount is not None:
        raise Conflict(f"key: {checked!r}: was used for a grant of {amount} credits, so it cannot be {asked}")
    _refuse_corrections(connection, [client_id], checked, asked)
    if kind == "adjust" and credits is not None:
        check_adjustment(connection, client_id, credits)
    made = insert(client_change).values(client_id=client_id, key=checked, reason=reason, **values)
    return _change(connection.execute(made.returning(*client_change.c)).one()), True


def refuse_changes(connection: Connection, client_ids: Sequence[str], key: str, asked: str) -> None:
    """Raise `Conflict` if a key of one of these clients made a change before, and so cannot make what is asked for."""
    these = any_(literal(list(client_ids), ARRAY(Text)))
    same = and_(client_change.c.client_id == these, client_change.c.key == key)
    for row in connection.execute(select(client_change).where(same).order_by(client_change.c.client_id).limit(1)):
        whose = "" if len(client_ids) == 1 else f" of client {row.client_id!r}"
        raise Conflict(f"key: {key!r}: was used for {_change(row)}{whose}, so it cannot be {asked}")
    _refuse_corrections(connection, client_ids, key, asked)


def _refuse_corrections(connection: Connection, client_ids: Sequence[str], key: str, asked: str) -> None:
    """Raise `Conflict` if a key of one of these clients corrected usage before."""
    these = any_(literal(list(client_ids), ARRAY(Text)))
    same = and_(usage_correction.c.client_id == these, usage_correction.c.key == key)
    for row in connection.execute(select(usage_correction).where(same).order_by(usage_correction.c.client_id).limit(1)):
        whose = "" if len(client_ids) == 1 else f" of client {row.client_id!r}"
        used = f"a correction of {row.corrects}:{row.corrects_line} by {row.credits:+,}"
        raise Conflict(f"key: {key!r}: was used for {used}{whose}, so it cannot be {asked}")


def _change(row: Row[*tuple[Any, ...]]) -> ChangeRow:
    return ChangeRow(**row._mapping)  # noqa: SLF001 - SQLAlchemy's documented way to a row's mapping
