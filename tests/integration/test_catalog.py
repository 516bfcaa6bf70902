"""Clients are added once, prices only ever forward: history that was used never changes its price (L7)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy

from billing.catalog.clients import add_client, clients_of_shard, get_client, list_clients
from billing.catalog.price_book import Price
from billing.catalog.prices import load_price_book, set_price
from billing.core.clock import from_milliseconds, to_milliseconds
from billing.core.credits import CREDITS_MAX
from billing.core.errors import InvalidValue, UnknownClient
from billing.core.shards import shard_of
from billing.fulfillment.log import UsageLog
from tests.usage_events import delivered, paid_line, usage_event

pytestmark = pytest.mark.integration

NOW = from_milliseconds(to_milliseconds(datetime.now(UTC)))
DAY = timedelta(days=1)
TICK = timedelta(milliseconds=1)


@pytest.fixture
def set_one(engine: sqlalchemy.Engine) -> Callable[..., Price]:
    """Return what sets a price, by default 5 credits per page from now."""

    def set_one(
        amount: object = 5,
        effective_at: Any = None,
        *,
        sku: object = "page",
        unit: object = "page",
        now: datetime = NOW,
    ) -> Price:
        with engine.begin() as connection:
            return set_price(connection, sku, amount, unit, effective_at, now)

    return set_one


def test_given_a_client_when_added_again_or_by_four_at_once_then_it_is_one(engine: sqlalchemy.Engine) -> None:
    def add(_: int) -> bool:
        with engine.begin() as connection:
            client, created = add_client(connection, "acme", 64)
            assert (client.client_id, client.shard, client.epoch) == ("acme", shard_of("acme", 64), 1)
            return created

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(add, range(4))) == [False, False, False, True]


@pytest.mark.parametrize("client_id", ["", "a b", "x" * 129, "nul\x00", "line\n", 7, None])
def test_given_a_bad_client_id_when_added_then_field_value_and_rule_are_named(
    engine: sqlalchemy.Engine, client_id: object
) -> None:
    with engine.begin() as connection, pytest.raises(InvalidValue, match=r"^client_id: .*: must be "):
        add_client(connection, client_id, 64)


def test_given_clients_when_listed_then_pages_follow_each_other_in_the_order_of_ids(
    engine: sqlalchemy.Engine, clients: Callable[..., None]
) -> None:
    clients("bolt", "acme", "crux", "dyno")
    with engine.connect() as connection:
        first = [client.client_id for client in list_clients(connection, limit=3)]
        assert first == ["acme", "bolt", "crux"]
        assert [client.client_id for client in list_clients(connection, limit=3, after=first[-1])] == ["dyno"]
        same_shard = clients_of_shard(connection, shard_of("bolt", 64), limit=10)
        assert "bolt" in [client.client_id for client in same_shard]
        with pytest.raises(UnknownClient, match="'nobody'"):
            get_client(connection, "nobody")
        with pytest.raises(InvalidValue, match=r"^limit: 0: "):
            list_clients(connection, limit=0)


def test_given_prices_when_set_then_versions_rise_and_the_book_holds_them(
    engine: sqlalchemy.Engine, set_one: Callable[..., Price]
) -> None:
    first, other, second = set_one(5), set_one(0, sku="kib", unit="KiB"), set_one(7, NOW + DAY)
    assert [first.version, other.version, second.version] == [1, 2, 3]
    with engine.connect() as connection:
        book = load_price_book(connection)
    assert book.prices() == [first, other, second]
    assert book.lookup("page", to_milliseconds(NOW)) == first
    assert book.lookup("page", to_milliseconds(NOW + DAY)) == second


def test_given_the_same_price_when_set_again_then_the_same_row_answers(
    set_one: Callable[..., Price], session: psycopg.Connection[Any]
) -> None:
    first = set_one(5)
    assert set_one(5, now=NOW + DAY) == first
    later = set_one(7, NOW + DAY)
    assert set_one(7, NOW + DAY) == later
    assert set_one(5, first.effective_at) == first  # a late repetition of the first command
    assert session.execute("SELECT count(*) FROM price").fetchone() == (2,)


def test_given_sixteen_prices_set_at_once_then_each_has_a_version_of_its_own(set_one: Callable[..., Price]) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda number: set_one(5, sku=f"sku-{number}"), range(16)))
    assert sorted(price.version for price in made) == list(range(1, 17))


@pytest.mark.parametrize("earlier", [timedelta(), TICK, 400 * DAY])
def test_given_a_price_when_one_that_begins_no_later_is_set_then_it_is_refused(
    set_one: Callable[..., Price], earlier: timedelta
) -> None:
    set_one(5)
    with pytest.raises(InvalidValue, match=r"^effective_at: '.*': must be after .*, when the last price of page takes"):
        set_one(7, NOW - earlier)


def test_given_usage_when_a_price_would_begin_at_or_before_it_then_it_is_refused_and_a_later_one_is_not(
    set_one: Callable[..., Price], log: UsageLog, clients: Callable[..., None]
) -> None:
    """The last use decides, whoever's it was; usage of other SKUs does not."""
    clients("acme", "bolt")
    set_one(5, NOW - 9 * DAY)
    used = NOW - DAY
    milliseconds = to_milliseconds(used)
    log.write(
        [
            delivered(usage_event("acme", occurred_at=milliseconds - 3_000)),
            delivered(usage_event("bolt", occurred_at=milliseconds)),
            delivered(usage_event("bolt", lines=[paid_line("kib")], occurred_at=milliseconds + 90_000_000)),
        ]
    )
    for start in (used - 7 * DAY, used - timedelta(hours=2), used - TICK, used):
        with pytest.raises(
            InvalidValue, match=r"^effective_at: '.*': must be after .*, the last use of page: a price n"
        ):
            set_one(7, start)
    assert set_one(7, used + TICK).effective_at == used + TICK


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"amount": -1}, "credits_per_unit: -1: must be from 0"),
        ({"amount": CREDITS_MAX + 1}, "credits_per_unit: 9007199254740992: must be from 0"),
        ({"amount": 1.5}, "credits_per_unit: 1.5: must be a whole number"),
        ({"amount": True}, "credits_per_unit: True: must be a whole number"),
        ({"sku": "Page"}, "sku: 'Page': must be 1 to 64"),
        ({"sku": None}, "sku: None: must be 1 to 64"),
        ({"unit": ""}, "unit: '': must be 1 to 32"),
        ({"unit": " page"}, "unit: ' page': must be 1 to 32"),
        ({"unit": "x" * 33}, "must be 1 to 32"),
        ({"unit": "KiB", "effective_at": NOW + DAY}, "unit: 'KiB': must stay 'page'"),
        ({"effective_at": datetime(2030, 1, 1)}, "must be an instant with a time zone"),  # noqa: DTZ001 - the very case
        ({"effective_at": "tomorrow"}, "effective_at: 'tomorrow': must be an instant"),
    ],
)
def test_given_a_bad_price_when_set_then_field_value_and_rule_are_named_and_nothing_is_stored(
    set_one: Callable[..., Price], session: psycopg.Connection[Any], change: dict[str, Any], message: str
) -> None:
    set_one(5)
    with pytest.raises(InvalidValue) as caught:
        set_one(**({"amount": 6} | change))
    assert message in str(caught.value)
    assert session.execute("SELECT count(*) FROM price").fetchone() == (1,)
