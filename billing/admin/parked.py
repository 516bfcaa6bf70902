"""Parked tasks: what waits for credits, and ending that without them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from sqlalchemy import select

from billing.admin.access import runtime_for
from billing.catalog import clients as catalog
from billing.connections import postgres
from billing.core.errors import InvalidValue
from billing.core.settings import Settings
from billing.ledger.locks import waiting_briefly
from billing.parking.parked import ParkedRow
from billing.parking.statements import CANCEL
from billing.schema.parked import parked_task

#: L9: tasks that one call shows.
PARKED_SHOWN_MAX: Final = 1_000
_COLUMNS: Final = tuple(parked_task.c[field.name] for field in dataclasses.fields(ParkedRow))


def parked(settings: Settings, *, client_id: str | None = None, after: int = 0) -> Sequence[ParkedRow]:
    """Return the tasks that wait, of one client or of all, in the order of parking, the next 1,000 after an id.

    Raises `UnknownClient`.
    """
    waiting = select(*_COLUMNS).where(parked_task.c.state == "waiting", parked_task.c.parked_id > after)
    with postgres.reaching(settings), runtime_for(settings).engine.connect() as connection:
        if client_id is not None:
            known = catalog.get_client(connection, client_id).client_id
            waiting = waiting.where(parked_task.c.client_id == known)
        found = connection.execute(waiting.order_by(parked_task.c.parked_id).limit(PARKED_SHOWN_MAX))
        return [ParkedRow(**row) for row in found.mappings()]


def cancel_parked(
    settings: Settings, *, parked_id: int | None = None, client_id: str | None = None
) -> Sequence[ParkedRow]:
    """Cancel one task that waits, or all of a client; return which. Their callers get `Cancelled` within seconds.

    Raises `InvalidValue` for an unknown task and for one that waits no more, `UnknownClient`, and `Locked` where
    somebody is starting it.
    """
    if (parked_id is None) == (client_id is None):
        raise InvalidValue("parked_id", parked_id, "give either the id of a parked task, or a client")
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.begin() as connection, waiting_briefly(connection):
        if client_id is not None:
            client_id = catalog.get_client(connection, client_id).client_id
        given = {"parked": parked_id, "client": client_id, "now": runtime.clock.now()}
        ended = [ParkedRow(**row) for row in connection.execute(CANCEL, given).mappings()]
        if parked_id is not None and not ended:
            state = connection.execute(select(parked_task.c.state).where(parked_task.c.parked_id == parked_id))
            raise _not_waiting(parked_id, state.scalar_one_or_none())
    return sorted(ended, key=lambda row: row.parked_id)


def _not_waiting(parked_id: int, state: str | None) -> InvalidValue:
    rule = "is not a parked task (see: billing parked list)" if state is None else f"waits no more: it is {state}"
    return InvalidValue("parked_id", parked_id, rule)
