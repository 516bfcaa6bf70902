"""Clients in PostgreSQL: who pays. A client's id is its key, and adding it again answers the same client."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, select
from sqlalchemy.dialects.postgresql import insert

from billing.core.errors import InvalidValue, UnknownClient
from billing.core.identifiers import check_client_id
from billing.core.shards import shard_of
from billing.schema.tables import client

#: L9: clients that one page of a listing holds at most.
PAGE_MAX: Final = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Client:
    """Who pays. `epoch` counts the rebuilds of the client's bucket (L6)."""

    client_id: str
    shard: int
    epoch: int
    state: str
    overdraft_limit: int
    created_at: datetime


def add_client(connection: Connection, client_id: object, shards: int) -> tuple[Client, bool]:
    """Add a client, and return it with whether it is new. Raises `InvalidValue` for a bad id."""
    checked = check_client_id(client_id)
    values = {"client_id": checked, "shard": shard_of(checked, shards)}
    made = connection.execute(insert(client).values(values).on_conflict_do_nothing().returning(*client.c)).one_or_none()
    return (get_client(connection, checked), False) if made is None else (_client(made), True)


def add_clients(connection: Connection, client_ids: Sequence[str], shards: int) -> list[tuple[Client, bool]]:
    """Add clients in one statement, and return each with whether it is new. Raises `InvalidValue` for a bad id."""
    values = [{"client_id": check_client_id(name), "shard": shard_of(name, shards)} for name in client_ids]
    new = insert(client).on_conflict_do_nothing().returning(client.c.client_id)
    made = set(connection.execute(new, values).scalars()) if values else set()
    known = {}
    for row in connection.execute(select(client).where(client.c.client_id.in_(client_ids))):
        known[row.client_id] = _client(row)
    return [(known[name], name in made) for name in client_ids]


def get_client(connection: Connection, client_id: object) -> Client:
    """Return the client. Raises `InvalidValue` for a bad id and `UnknownClient` for one that was never added."""
    checked = check_client_id(client_id)
    found = connection.execute(select(client).where(client.c.client_id == checked)).one_or_none()
    if found is None:
        raise UnknownClient(checked)
    return _client(found)


def list_clients(connection: Connection, *, limit: int = 1_000, after: str = "") -> Sequence[Client]:
    """Return at most `limit` clients in the order of their ids, beginning after the id `after`."""
    if not 1 <= limit <= PAGE_MAX:
        raise InvalidValue("limit", limit, f"must be from 1 to {PAGE_MAX}")
    page = select(client).where(client.c.client_id > after).order_by(client.c.client_id).limit(limit)
    return [_client(row) for row in connection.execute(page)]


def beginning_with(connection: Connection, prefix: str, *, limit: int, newest: bool = False) -> Sequence[Client]:
    """Return at most `limit` clients whose ids begin so, in the order of their ids, or the newest first."""
    found = select(client).where(client.c.client_id.startswith(prefix, autoescape=True)).limit(limit)
    by = [client.c.created_at.desc(), client.c.client_id] if newest else [client.c.client_id]
    return [_client(row) for row in connection.execute(found.order_by(*by))]


def clients_of_shard(connection: Connection, shard: int, *, limit: int, after: str = "") -> Sequence[Client]:
    """Return at most `limit` clients of a shard in the order of their ids, beginning after the id `after`."""
    page = select(client).where(client.c.shard == shard, client.c.client_id > after)
    return [_client(row) for row in connection.execute(page.order_by(client.c.client_id).limit(limit))]


def _client(row: Row[*tuple[Any, ...]]) -> Client:
    return Client(**row._mapping)  # noqa: SLF001 - SQLAlchemy's documented way to a row's mapping
