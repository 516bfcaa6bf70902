"""Finishes requests: a grant under the request's key, or a decline, after which nothing is asked for a while.

Each is one transaction, and happens once however often it is said. A grant may still come after a decline or a lapse,
since it says that money was paid; nothing comes after a grant.
"""

from __future__ import annotations

import dataclasses
import functools
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, select

from billing.connections import postgres
from billing.core.errors import InvalidValue, Retryable
from billing.core.shards import shard_of
from billing.ledger import locks
from billing.ledger.grants import GrantRow, add_grant, grant_of_key
from billing.recovery.grants import apply_grant, used_up
from billing.schema.top_ups import top_up_request
from billing.task.runtime import Runtime
from billing.top_ups.request import RequestRow
from billing.top_ups.rule import Rule, back_off
from billing.top_ups.statements import FINISH, LOCK_RULE, REST, TELL_DECLINED

_OPEN: Final = ["wanted", "asked"]
_NOT_GRANTED: Final = [*_OPEN, "declined", "lapsed"]
#: What a client is told. Words of our own: what a hook raised may name a card, an account, a key.
_TOLD: Final = {
    "declined": "the automatic top-up was declined",
    "lapsed": "the automatic top-up came to nothing: it was not answered in time",
}


def grant_request(runtime: Runtime, request_id: int) -> None:
    """Write the grant of a request that was paid for. Its rule cools off, and forgets its declines.

    A grant that the application wrote under the request's key itself is taken for it. Raises `Rejected` where the
    ledger refuses the grant, say of a closed client, `Locked`, and `Retryable` where the bucket of a client that may
    have too many grants cannot be asked.
    """
    now = runtime.clock.now()
    with postgres.reaching(runtime.settings), runtime.engine.begin() as connection, locks.waiting_briefly(connection):
        request = read_request(connection, request_id)
        locks.lock_shards_shared(connection, [shard_of(request.client_id, runtime.settings.shards)])
        grant = _grant(runtime, connection, request)
        held = _lock_rule(connection, request_id)
        finished = _finish(connection, request_id, "granted", _NOT_GRANTED, now, grant_id=grant.grant_id)
        if finished and held is not None:
            _rest(connection, held, 0, now + timedelta(seconds=held.rule.cool_off_seconds))
    try:
        if grant.applied_at is None:
            apply_grant(runtime, grant)
    except Retryable:
        return  # its bucket gets it from the fulfillment worker, as every open grant


def decline_request(
    runtime: Runtime, request_id: int, *, state: str = "declined", reason: str, attempts: int | None = None
) -> bool:
    """Finish a request without a grant, if it is open; return whether that was so. Its rule backs off.

    The client is told, by an alert. `state`: declined, or lapsed where no answer came.
    `attempts`: only if this attempt is the last one that was begun.
    """
    now = runtime.clock.now()
    with postgres.reaching(runtime.settings), runtime.engine.begin() as connection, locks.waiting_briefly(connection):
        held = _lock_rule(connection, request_id)
        if not _finish(connection, request_id, state, _OPEN, now, reason=reason, attempts=attempts):
            return False
        if held is not None:
            declines = held.declines + 1
            _rest(connection, held, declines, now + back_off(held.rule, declines))
        connection.execute(TELL_DECLINED, {"request": request_id, "now": now, "found": _TOLD[state]})
        return True


def drop_request(runtime: Runtime, request_id: int, reason: str) -> None:
    """Let a request lapse that nobody was asked for, as if it had never been made."""
    with postgres.reaching(runtime.settings), runtime.engine.begin() as connection, locks.waiting_briefly(connection):
        _lock_rule(connection, request_id)
        _finish(connection, request_id, "lapsed", ["wanted"], runtime.clock.now(), reason=reason)


def read_request(connection: Connection, request_id: int) -> RequestRow:
    """Return a request. Raises `InvalidValue`."""
    row = connection.execute(select(top_up_request).where(top_up_request.c.request_id == request_id)).one_or_none()
    if row is None:
        raise InvalidValue("request_id", request_id, "is not a known request (see: billing top-up show)")
    return RequestRow(**row._mapping)  # noqa: SLF001 - SQLAlchemy's documented way to a row's mapping


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Held:
    """A rule that this transaction has locked."""

    rule: Rule
    declines: int


def _grant(runtime: Runtime, connection: Connection, request: RequestRow) -> GrantRow:
    found = grant_of_key(connection, request.client_id, request.key)
    if found is not None:
        return found
    reason = f"top-up request {request.request_id}"
    known = functools.partial(used_up, runtime)
    return add_grant(connection, request.client_id, request.credits, request.key, reason=reason, used_up=known)[0]


def _lock_rule(connection: Connection, request_id: int) -> _Held | None:
    row = connection.execute(LOCK_RULE, {"request": request_id}).mappings().one_or_none()
    if row is None:
        return None
    return _Held(rule=Rule.of(row), declines=row["declines"])


def _finish(
    connection: Connection,
    request_id: int,
    state: str,
    from_states: list[str],
    now: datetime,
    *,
    reason: str = "",
    grant_id: int | None = None,
    attempts: int | None = None,
) -> bool:
    given: dict[str, Any] = {"request": request_id, "state": state, "from": from_states, "now": now}
    given |= {"reason": reason, "grant": grant_id, "attempts": attempts}
    return connection.execute(FINISH, given).rowcount > 0


def _rest(connection: Connection, held: _Held, declines: int, until: datetime) -> None:
    connection.execute(REST, {"client": held.rule.client_id, "declines": declines, "until": until})
