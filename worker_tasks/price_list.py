"""The fleet's default price list, as data: what each SKU costs in credits, and the unit it is counted in.

Prices in force live in billing's price book; these are what `billing price set` is given for a new fleet.
"""

from __future__ import annotations

import dataclasses
from typing import Final

PAGE_CAPTURE: Final = "page-capture"
PAGE_TRANSFER: Final = "page-transfer-100kib"
CORPUS_FILE_SCAN: Final = "corpus-file-scan"
PREMIUM_SEARCH: Final = "premium-search"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ListedPrice:
    """Credits for one unit of a SKU."""

    sku: str
    credits_per_unit: int
    unit: str


PRICE_LIST: Final = (
    ListedPrice(sku=PAGE_CAPTURE, credits_per_unit=2, unit="page"),
    ListedPrice(sku=PAGE_TRANSFER, credits_per_unit=1, unit="started 100 KiB"),
    ListedPrice(sku=CORPUS_FILE_SCAN, credits_per_unit=1, unit="file"),
    ListedPrice(sku=PREMIUM_SEARCH, credits_per_unit=25, unit="search"),
)
