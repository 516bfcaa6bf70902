"""Reads what a client has and what it used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from billing.admin.access import runtime_for
from billing.admin.spans import checked
from billing.catalog import clients as catalog
from billing.connections import postgres
from billing.core.errors import Recovering
from billing.core.settings import Settings
from billing.credits.values import Balance
from billing.fulfillment.reading import Place, UsageRow, UsageSum, usage_page, usage_sums
from billing.fulfillment.selection import EVERYTHING, Selection


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


def usage(
    settings: Settings,
    client_id: str,
    *,
    limit: int = 100,
    before: Place | None = None,
    of: Selection = EVERYTHING,
) -> Sequence[UsageRow]:
    """Return at most `limit` rows of a client's usage history, newest first, beginning before a place."""
    checked(of)
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        catalog.get_client(connection, client_id)
        return usage_page(connection, client_id, limit=limit, before=before, of=of)


def all_usage(settings: Settings, client_id: str) -> Iterator[UsageRow]:
    """Yield every row of a client's usage history, newest first, a bounded page at a time."""
    before = None
    while page := usage(settings, client_id, limit=1_000, before=before):
        yield from page
        before = page[-1].place


def usage_totals(settings: Settings, client_ids: Sequence[str] | None = None) -> Sequence[UsageSum]:
    """Return what the usage history holds of some clients (None: of all)."""
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        return usage_sums(connection, client_ids)
