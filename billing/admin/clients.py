"""Clients: added to the catalog, and given their bucket."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sqlalchemy import Connection

from billing.admin.access import runtime_for
from billing.catalog import clients as catalog
from billing.catalog.clients import Client
from billing.connections import postgres
from billing.core.errors import Recovering
from billing.core.identifiers import check_client_id
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.credits.values import Balance, OpenOutcome
from billing.ledger import locks, rebuilds
from billing.recovery.facts import shards_with_clients
from billing.schema.fleet import check_fleet
from billing.task.runtime import Runtime


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClientView:
    """A client beside its bucket; `balance` is None while the bucket is missing or its shard is rebuilt."""

    client: Client
    balance: Balance | None


def add_client(settings: Settings, client_id: str) -> tuple[Client, bool]:
    """Add a client with an empty bucket; return it with whether it is new. Adding it again changes nothing.

    Raises `InvalidValue` for a bad id, and `Unreachable` when a server does not answer; nothing is added then.
    """
    check_client_id(client_id)
    return add_on_shard(settings, shard_of(client_id, settings.shards), [client_id])[0]


def add_on_shard(settings: Settings, shard: int, client_ids: Sequence[str]) -> list[tuple[Client, bool]]:
    """Add clients of one shard, all or none, as `add_client` does."""
    runtime = runtime_for(settings)
    # Asked first, so that a Redis which is away leaves no client without a bucket behind.
    verified, current = runtime.buckets.server_of(shard)
    with postgres.reaching(settings), runtime.engine.begin() as connection:
        check_fleet(connection, settings)
        # Alone on the shard, so that "the first client of a shard opens it" has one answer.
        locks.lock_shard_exclusive(connection, shard)
        if verified != current and shard not in shards_with_clients(connection):
            runtime.buckets.verify(shard, expected=current)
        added = catalog.add_clients(connection, client_ids, settings.shards)
        for client, created in added:
            _give_bucket(runtime, connection, client, created=created)
    return added


def _give_bucket(runtime: Runtime, connection: Connection, client: Client, *, created: bool) -> None:
    """Open a new client's bucket. A known client without one has lost it: its shard is rebuilt instead (L6)."""
    if not created:
        try:
            present = runtime.buckets.balance(client.client_id) is not None
        except Recovering:
            return
        if not present:
            rebuilds.request_rebuild(connection, client.shard, "a bucket is missing")
        return
    outcome = runtime.buckets.open_client(client.client_id, client.epoch)
    if outcome is OpenOutcome.RECOVERING:
        rebuilds.request_rebuild(connection, client.shard, "a client was added while the shard was recovering")
    elif outcome is OpenOutcome.LOST or (outcome is OpenOutcome.ALREADY and not _is_fresh(runtime, client)):
        # Redis was kept, PostgreSQL was not: what the old bucket says is in no ledger (L6).
        rebuilds.request_rebuild(connection, client.shard, "a new client had a bucket already")


def _is_fresh(runtime: Runtime, client: Client) -> bool:
    """Whether a bucket is as `open_client` makes it: an answer that was lost is asked for again, and says `ALREADY`."""
    try:
        balance = runtime.buckets.balance(client.client_id)
    except Recovering:
        return False
    return balance is not None and balance.epoch == client.epoch and not balance.grants and not balance.debt


def client(settings: Settings, client_id: str) -> ClientView:
    """Return one client with its balance. Raises `UnknownClient`."""
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        found = catalog.get_client(connection, client_id)
    return _view(runtime, found)


def clients(settings: Settings, *, limit: int = 100, after: str = "") -> Sequence[ClientView]:
    """Return at most `limit` clients with their balances, in the order of their ids, after the id `after`."""
    if after:
        check_client_id(after, field="after")
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        page = catalog.list_clients(connection, limit=limit, after=after)
    return [_view(runtime, found) for found in page]


def _view(runtime: Runtime, found: Client) -> ClientView:
    try:
        balance = runtime.buckets.balance(found.client_id)
    except Recovering:
        balance = None
    return ClientView(client=found, balance=balance)
