"""The price book: every price that ever was, as one frozen value. Pure.

A book's `version` rises with each price that is set. A SKU's prices take effect in the order of their versions, so
"the price at an instant, as known to book version v" has one answer, for ever: a run that fixed its version at its
first reserve is rated the same on every later delivery.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterable
from datetime import datetime

from billing.core.clock import to_milliseconds
from billing.core.errors import UnknownSku


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """What one unit of a SKU costs from `effective_at` until the SKU's next price."""

    sku: str
    version: int
    credits_per_unit: int
    unit: str
    effective_at: datetime


class PriceBook:
    """All prices, at one version."""

    def __init__(self, prices: Iterable[Price]) -> None:
        self._by_sku: dict[str, list[Price]] = {}
        for price in sorted(prices, key=lambda price: price.version):
            self._by_sku.setdefault(price.sku, []).append(price)
        self._starts = {
            sku: [to_milliseconds(price.effective_at) for price in prices] for sku, prices in self._by_sku.items()
        }
        self.version = max((prices[-1].version for prices in self._by_sku.values()), default=0)

    def lookup(self, sku: str, at_milliseconds: int, *, version: int | None = None) -> Price:
        """Return the price of a SKU in effect at an instant, as the book knew it at `version` (None: now).

        Raises `UnknownSku` if there is none.
        """
        prices = self._by_sku.get(sku, [])
        count = bisect.bisect_right(self._starts.get(sku, []), at_milliseconds)
        if version is not None:
            count = min(count, bisect.bisect_right(prices, version, key=lambda price: price.version))
        if not count:
            raise UnknownSku(sku)
        return prices[count - 1]

    def prices(self, sku: str | None = None) -> list[Price]:
        """Return the prices of a SKU, or of all, in the order in which they were set."""
        found = self._by_sku.get(sku, []) if sku else [price for prices in self._by_sku.values() for price in prices]
        return sorted(found, key=lambda price: price.version)
