"""Prices: set once, never changed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from billing.admin.access import runtime_for
from billing.catalog import prices as catalog
from billing.catalog.price_book import Price
from billing.connections import postgres
from billing.core.settings import Settings


def set_price(
    settings: Settings, sku: str, credits_per_unit: int, unit: str, *, effective_at: datetime | None = None
) -> Price:
    """Set what a unit of a SKU costs from an instant on (None: now). Raises `InvalidValue`; see `catalog.prices`."""
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.begin() as connection:
        return catalog.set_price(connection, sku, credits_per_unit, unit, effective_at, runtime.clock.now())


def prices(settings: Settings) -> Sequence[Price]:
    """Return all prices in the order in which they were set."""
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        return catalog.load_price_book(connection).prices()
