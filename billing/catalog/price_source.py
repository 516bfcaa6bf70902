"""How a worker reads the price book: over a bare connection of the moment, without SQLAlchemy in its memory.

Every process of a fleet does this every few seconds, and otherwise hardly ever talks to PostgreSQL: it keeps no
connection there.
"""

from __future__ import annotations

from typing import Final

from billing.catalog.price_book import Price, PriceBook
from billing.connections import libpq
from billing.core.fleet_numbers import check_numbers
from billing.core.settings import Settings

_NUMBERS: Final = "SELECT shards, usage_queues FROM fleet"
_PRICES: Final = "SELECT sku, version, credits_per_unit, unit, effective_at FROM price"


def read_price_book(settings: Settings) -> PriceBook:
    """Return all prices. Raises `Unreachable`, `NotMigrated`, and `InvalidValue` for settings of another fleet."""
    with libpq.reaching(settings), libpq.connect(settings) as connection:
        # With the wrong number of shards every client would look as if its bucket were lost.
        numbers = connection.execute(_NUMBERS).fetchone()
        if numbers is not None:
            check_numbers(settings, *numbers)
        return PriceBook(
            Price(sku=sku, version=version, credits_per_unit=amount, unit=unit, effective_at=effective_at)
            for sku, version, amount, unit, effective_at in connection.execute(_PRICES)
        )
