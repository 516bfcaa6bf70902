"""A price book answers "the price at an instant, as known at a version" the same for ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from billing.catalog.price_book import Price, PriceBook
from billing.core.clock import to_milliseconds
from billing.core.errors import UnknownSku

DAY = timedelta(days=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
AT = to_milliseconds(START)
DAY_MILLISECONDS = 86_400_000


def a_price(sku: str, version: int, credits_per_unit: int, day: int) -> Price:
    """Make a price that begins `day` days after the start."""
    at = START + day * DAY
    return Price(sku=sku, version=version, credits_per_unit=credits_per_unit, unit="page", effective_at=at)


BOOK = PriceBook([a_price("page", 3, 7, 10), a_price("search", 2, 50, 5), a_price("page", 1, 5, 0)])


@pytest.mark.parametrize(
    ("milliseconds", "credits_per_unit"),
    [(0, 5), (10 * DAY_MILLISECONDS - 1, 5), (10 * DAY_MILLISECONDS, 7), (10**12, 7)],
)
def test_given_an_instant_when_looked_up_then_the_latest_price_in_effect_answers(
    milliseconds: int, credits_per_unit: int
) -> None:
    """A price counts from the very millisecond at which it takes effect."""
    assert BOOK.lookup("page", AT + milliseconds).credits_per_unit == credits_per_unit


@pytest.mark.parametrize(("sku", "milliseconds"), [("page", -1), ("search", 0), ("unknown", 0)])
def test_given_no_price_in_effect_when_looked_up_then_the_sku_is_named(sku: str, milliseconds: int) -> None:
    with pytest.raises(UnknownSku, match=f"sku: '{sku}'"):
        BOOK.lookup(sku, AT + milliseconds)


def test_given_an_older_version_when_looked_up_then_prices_set_later_do_not_exist() -> None:
    """A run that fixed its version at its first reserve costs the same on every delivery (L3)."""
    late = AT + 20 * DAY_MILLISECONDS
    assert BOOK.lookup("page", late, version=3).credits_per_unit == 7
    assert BOOK.lookup("page", late, version=2).credits_per_unit == 5
    with pytest.raises(UnknownSku):
        BOOK.lookup("search", late, version=1)


def test_given_prices_in_any_order_then_the_book_knows_its_version_and_prices() -> None:
    assert BOOK.version == 3
    assert [price.version for price in BOOK.prices()] == [1, 2, 3]
    assert [price.version for price in BOOK.prices("page")] == [1, 3]
    assert PriceBook([]).version == 0
