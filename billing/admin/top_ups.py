"""Top-up rules, the requests that they made, and the application's answers to those."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Literal

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from billing.admin.access import runtime_for
from billing.catalog import clients as catalog
from billing.connections import postgres
from billing.core.errors import InvalidValue
from billing.core.settings import Settings
from billing.schema.top_ups import top_up_request, top_up_rule
from billing.top_ups.finishing import decline_request, grant_request, read_request
from billing.top_ups.request import RequestRow
from billing.top_ups.rule import Rule, check_rule

#: L9: requests that are shown of a client.
_SHOWN_MAX: Final = 20
#: Due before all others, and resting no longer, by any clock.
_AT_ONCE: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TopUp:
    """A client's rule, how often it was declined in a row, until when nothing is asked, and its newest requests."""

    rule: Rule | None
    declines: int
    quiet_until: datetime | None
    requests: Sequence[RequestRow]


def set_top_up(
    settings: Settings,
    client_id: str,
    credits_: int,
    *,
    below_percent: int | None = None,
    below_credits: int | None = None,
    cool_off_seconds: int = 3_600,
    back_off_seconds: int = 3_600,
    back_off_max_seconds: int = 7 * 86_400,
) -> Rule:
    """Ask for credits from now on, whenever a client is short. A rule that it had is replaced.

    Short is below a share of what its usable grants brought (as alerts count it), or below so many credits. After a
    grant it rests for `cool_off_seconds`, after a decline for `back_off_seconds`, doubled by each further one. What
    rests goes on resting: setting a rule again and again asks no more often. Raises `InvalidValue`, `UnknownClient`.
    """
    checked = check_rule(
        Rule(
            client_id=client_id,
            credits=credits_,
            below_percent=below_percent,
            below_credits=below_credits,
            cool_off_seconds=cool_off_seconds,
            back_off_seconds=back_off_seconds,
            back_off_max_seconds=back_off_max_seconds,
        )
    )
    with postgres.reaching(settings), runtime_for(settings).engine.begin() as connection:
        catalog.get_client(connection, checked.client_id)
        values = dataclasses.asdict(checked)
        made = upsert(top_up_rule).values(**values, quiet_until=_AT_ONCE, look_at=_AT_ONCE)
        changes = {**values, "look_at": _AT_ONCE, "version": top_up_rule.c.version + 1}
        connection.execute(made.on_conflict_do_update(index_elements=["client_id"], set_=changes))
    return checked


def top_up(settings: Settings, client_id: str) -> TopUp:
    """Return a client's rule and its newest requests. Raises `UnknownClient`."""
    with postgres.reaching(settings), runtime_for(settings).engine.connect() as connection:
        known = catalog.get_client(connection, client_id).client_id
        row = connection.execute(select(top_up_rule).where(top_up_rule.c.client_id == known)).mappings().one_or_none()
        newest = (
            select(top_up_request)
            .where(top_up_request.c.client_id == known)
            .order_by(top_up_request.c.request_id.desc())
            .limit(_SHOWN_MAX)
        )
        requests = [RequestRow(**found) for found in connection.execute(newest).mappings()]
    if row is None:
        return TopUp(rule=None, declines=0, quiet_until=None, requests=requests)
    rule = Rule.of(row)
    return TopUp(rule=rule, declines=row["declines"], quiet_until=row["quiet_until"], requests=requests)


def remove_top_up(settings: Settings, client_id: str) -> bool:
    """Ask for nothing more, and return whether there was a rule. What was asked for already may still be answered."""
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.begin() as connection:
        known = catalog.get_client(connection, client_id).client_id
        removed = connection.execute(delete(top_up_rule).where(top_up_rule.c.client_id == known)).rowcount
        wanted = (top_up_request.c.client_id == known, top_up_request.c.state == "wanted")
        lapsed = {"state": "lapsed", "finished_at": runtime.clock.now(), "reason": "the rule was removed"}
        connection.execute(update(top_up_request).where(*wanted).values(lapsed))
    return removed > 0


def answer_top_up(settings: Settings, request_id: int, answer: Literal["granted", "declined"]) -> RequestRow:
    """Answer a request: granted gives the credits, once, also after a decline; declined lets the rule back off.

    Raises `InvalidValue` for an unknown request, for a decline of one that is finished otherwise, and where the ledger
    refuses the grant; `Locked` where somebody is at it.
    """
    runtime = runtime_for(settings)
    if answer == "granted":
        grant_request(runtime, request_id)
    elif answer == "declined":
        decline_request(runtime, request_id, reason="was answered so")
    else:
        raise InvalidValue("answer", answer, "must be granted or declined")
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        row = read_request(connection, request_id)
    if row.state != answer:
        raise InvalidValue("request_id", request_id, f"is {row.state} already, so it cannot be {answer}")
    return row
