"""Rating: quantity times price is credits. Pure, in whole numbers, bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing.core.credits import CREDITS_MAX, check_amount
from billing.core.errors import InvalidValue

if TYPE_CHECKING:
    from billing.catalog.price_book import Price


def rate(price: Price, quantity: object) -> int:
    """Return what `quantity` units of the price's SKU cost. Nothing used costs nothing.

    Raises `InvalidValue` for a quantity that is negative, not a plain whole number, or so large that the quantity or
    its cost passes 2^53 - 1, which Redis could not count.
    """
    units = check_amount("quantity", quantity, minimum=0)
    cost = units * price.credits_per_unit
    if cost > CREDITS_MAX:
        rule = f"must cost at most {CREDITS_MAX} credits; a {price.unit} of {price.sku} costs {price.credits_per_unit}"
        raise InvalidValue("quantity", units, rule)
    return cost
