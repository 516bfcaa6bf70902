"""Rating is whole numbers, exact up to 2^53 - 1 and refused past it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.catalog.price_book import Price
from billing.catalog.rating import rate
from billing.core.credits import CREDITS_MAX
from billing.core.errors import InvalidValue

AMOUNTS = st.integers(min_value=0, max_value=CREDITS_MAX)


def a_price(credits_per_unit: int) -> Price:
    """Make a price."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return Price(sku="page", version=1, credits_per_unit=credits_per_unit, unit="page", effective_at=start)


@given(AMOUNTS, AMOUNTS)
def test_given_any_price_and_quantity_when_rated_then_it_is_their_product_or_refused(price: int, quantity: int) -> None:
    if price * quantity <= CREDITS_MAX:
        assert rate(a_price(price), quantity) == price * quantity
    else:
        with pytest.raises(
            InvalidValue, match=r"^quantity: \d+: must cost at most 9007199254740991 credits; a page of"
        ):
            rate(a_price(price), quantity)


def test_given_nothing_used_when_rated_then_it_costs_nothing() -> None:
    assert rate(a_price(CREDITS_MAX), 0) == 0
    assert rate(a_price(0), CREDITS_MAX) == 0


@pytest.mark.parametrize("quantity", [-1, CREDITS_MAX + 1, 1.0, "1", True, None])
def test_given_no_whole_number_of_units_when_rated_then_field_value_and_rule_are_named(quantity: object) -> None:
    with pytest.raises(InvalidValue, match=r"^quantity: .+: must be .*from 0 to 9007199254740991$"):
        rate(a_price(1), quantity)
