"""What a replay charges for each SKU: the price that is in effect, or the one that it was told. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from billing.catalog.price_book import PriceBook
from billing.core.credits import parse_amount
from billing.core.errors import InvalidValue, UnknownSku
from billing.core.identifiers import check_sku

OPTION: Final = "--price"
#: Credits for a unit of a SKU that has no price and was given none.
DEFAULT_CREDITS: Final = 1


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PriceOptions:
    """What `--price` said: for every SKU, and for some."""

    every: int | None = None
    some: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def of(self, sku: str) -> int | None:
        """Return what was said about a SKU, None for nothing."""
        return self.some.get(sku, self.every)


def read_prices(options: Sequence[str]) -> PriceOptions:
    """Read `2` and `sku=2`, as often as they are given."""
    every: int | None = None
    some: dict[str, int] = {}
    for option in options:
        name, equals, amount = option.rpartition("=")
        credits_ = parse_amount(OPTION, amount, minimum=0)
        if equals:
            sku = check_sku(name, field=OPTION)
            if some.setdefault(sku, credits_) != credits_:
                raise InvalidValue(OPTION, option, f"contradicts {sku}={some[sku]}")
        elif every not in (None, credits_):
            raise InvalidValue(OPTION, option, f"contradicts {every}")
        else:
            every = credits_
    return PriceOptions(every=every, some=some)


def prices_to_set(
    book: PriceBook, at_milliseconds: int, skus: Iterable[str], options: PriceOptions
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the credits per unit of each SKU, and those of them that have to be set first.

    A price that is in effect with the same value stays; raises `InvalidValue` for one with another value.
    """
    prices, missing = {}, {}
    for sku in skus:
        wanted = options.of(sku)
        try:
            found = book.lookup(sku, at_milliseconds).credits_per_unit
        except UnknownSku:
            prices[sku] = missing[sku] = DEFAULT_CREDITS if wanted is None else wanted
            continue
        if wanted not in (None, found):
            raise InvalidValue(OPTION, f"{sku}={wanted}", f"costs {found} credits already (see: billing price list)")
        prices[sku] = found
    unknown = sorted(options.some.keys() - prices.keys())
    if unknown:
        raise InvalidValue(OPTION, unknown[0], f"is no SKU of the file; it has: {', '.join(sorted(prices))[:200]}")
    return prices, missing
