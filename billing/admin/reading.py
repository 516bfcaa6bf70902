"""Reads what a client has and what it used."""

from __future__ import annotations

from billing.admin.access import runtime_for
from billing.catalog import clients as catalog
from billing.connections import postgres
from billing.core.errors import Recovering
from billing.core.settings import Settings
from billing.credits.values import Balance


def balance(settings: Settings, client_id: str) -> Balance:
    """Return a client's balance. Raises `UnknownClient`, and `Recovering` while its shard is rebuilt."""
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        catalog.get_client(connection, client_id)
    found = runtime.buckets.balance(client_id)
    if found is None:
        message = f"client_id: {client_id!r}: its bucket is missing and is being rebuilt; try again"
        raise Recovering(message)
    return found
