"""Finds clients by the beginning of their ids, with their buckets: one bounded page, newest, first or poorest first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

from billing.catalog import clients as catalog
from billing.catalog.clients import Client
from billing.credits.auditing import BucketReading
from billing.observability.flower.billing_page.reading import reading
from billing.task.runtime import Runtime

#: L9: clients on one page, and clients whose balances are compared to find the lowest.
SHOWN_MAX: Final = 50
COMPARED_MAX: Final = 1_000

#: The orders of a page, and how each is named.
ORDERS: Final = {"newest": "newest first", "name": "by client id", "lowest": "lowest balance first"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Clients of a search; `more`: there are more than were looked at."""

    clients: Sequence[Client]
    more: bool


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClientLine:
    """A client and its bucket; None: Redis was not asked or did not answer."""

    client: Client
    bucket: BucketReading | None


def find(runtime: Runtime, beginning: str, order: str) -> Found:
    """Return the clients whose ids begin so: a page of them, or those whose balances are to be compared."""
    limit = COMPARED_MAX if order == "lowest" else SHOWN_MAX
    with reading(runtime) as connection:
        rows = catalog.beginning_with(connection, beginning, limit=limit + 1, newest=order == "newest")
    return Found(clients=rows[:limit], more=len(rows) > limit)


def buckets_of(runtime: Runtime, client_ids: Sequence[str]) -> Mapping[str, BucketReading]:
    """Return the buckets of clients, in one round trip, without a look at their holds."""
    return runtime.buckets.audit(client_ids, holds_max=0) if client_ids else {}


def lines(found: Found, buckets: Mapping[str, BucketReading] | None, order: str) -> Sequence[ClientLine]:
    """Return the lines of a page. A bucket that cannot be read stands before the lowest: it admits nothing."""
    known = buckets or {}
    every = [ClientLine(client=each, bucket=known.get(each.client_id)) for each in found.clients]
    if order == "lowest" and buckets is not None:
        every.sort(key=_available)
    return every[:SHOWN_MAX]


def _available(line: ClientLine) -> tuple[bool, int, str]:
    balance = line.bucket and line.bucket.balance
    return (balance is not None, balance.available - balance.owed if balance else 0, line.client.client_id)
