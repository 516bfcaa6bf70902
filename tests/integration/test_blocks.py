"""A block of `billing.reserve` is charged once when it ends well, and costs nothing when it does not (L1, L3, L4).

The laws of a task hold for a block: the same scripts, the same events, the same rows.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import redis

import billing
from billing import AlreadyCharged, InsufficientCredits, InvalidValue, UnknownClient, UnknownSku
from billing.core.errors import BillingError, Rejected, Unreachable
from billing.credits.buckets import Buckets
from billing.task.block import Block
from billing.task.lifecycle import Lifecycle
from billing.task.outcome import Outcome
from billing.task.outside import Order
from billing.task.runtime import Runtime
from billing.task.usage import NotInARun
from tests.fleet.harness import Fleet
from tests.fleet.tasks import OTHER_SKU, SKU
from tests.integration.reserving import books, reserve, used_here
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def shop(running_fleet: Fleet) -> Iterator[Fleet]:
    """Use the fleet from this very process, and leave no connection behind."""
    with used_here(running_fleet) as fleet:
        yield fleet


def test_what_the_block_names_is_held_in_it_and_charged_after_it(shop: Fleet) -> None:
    """Given 100 credits and a price of 10, when a block of 3 units ends well, then one row of 30."""
    shop.client("alder", 100)

    with reserve(shop, "alder", quantity=3) as run:
        assert books(shop, "alder") == (70, 30, 0)
        assert (run.outcome, run.credits_held, run.credits_charged) == (Outcome.HELD, 30, None)

    assert (run.outcome, run.credits_charged) == (Outcome.CHARGED, 30)
    (row,) = shop.wait_for_rows(1, "alder")
    assert (row.sku, row.quantity, row.credits, row.late, row.attempt) == (SKU, 3, 30, False, 1)
    assert row.correlation_id == str(run.run_id)
    assert books(shop, "alder") == (70, 0, 30)


def test_what_was_recorded_is_charged_instead(shop: Fleet) -> None:
    """Given a block that may use several SKUs, then what it recorded is charged, by either way to record."""
    shop.client("birch", 100)

    with reserve(shop, "birch", quantity=4, reserve={OTHER_SKU: 5}) as run:
        assert books(shop, "birch") == (45, 55, 0)
        run.record(quantity=2)
        billing.usage.record(3, sku=OTHER_SKU)

    rows = shop.wait_for_rows(2, "birch")
    assert {(row.sku, row.quantity, row.credits) for row in rows} == {(SKU, 2, 20), (OTHER_SKU, 3, 9)}
    assert books(shop, "birch") == (71, 0, 29)
    with pytest.raises(NotInARun):
        run.record(1)
    with pytest.raises(NotInARun):
        billing.usage.record(1)


@pytest.mark.parametrize("ending", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_an_exception_of_any_kind_gives_the_credits_back(shop: Fleet, ending: type[BaseException]) -> None:
    """Given a block that raises, then its hold is released at once and there is no row (L3)."""
    client_id = shop.client(f"cedar-{ending.__name__}", 100)

    with pytest.raises(ending), reserve(shop, client_id) as run:  # noqa: PT012 - it records before it raises
        run.record(2)
        raise ending

    assert run.outcome is Outcome.RELEASED
    assert books(shop, client_id) == (100, 0, 0)
    assert shop.rows(client_id) == []


def test_a_generator_that_is_dropped_gives_the_credits_back(shop: Fleet) -> None:
    """Given a stream that nobody reads to its end, then it is not charged, and its caller was in no block."""
    shop.client("elm", 100)

    def stream() -> Generator[int]:
        with reserve(shop, "elm"):
            yield 1

    reading = stream()
    assert next(reading) == 1
    assert books(shop, "elm") == (90, 10, 0)
    reading.close()

    assert books(shop, "elm") == (100, 0, 0)
    with pytest.raises(NotInARun):
        billing.usage.record(1)


def test_what_refuses_a_block_is_raised_before_it_begins(shop: Fleet) -> None:
    """Given no credits, no client, no price or a bad value, then one line, and nothing is held."""
    shop.client("fir", 25)
    refusals: list[tuple[type[BillingError], dict[str, Any], str]] = [
        (InsufficientCredits, {"client_id": "fir", "quantity": 3}, "25 of the 30 credits"),
        (UnknownClient, {"client_id": "nobody"}, "nobody"),
        (UnknownSku, {"client_id": "fir", "sku": "no-such"}, "no-such"),
        (InvalidValue, {"client_id": "fir", "quantity": 1.5}, "quantity: 1.5"),
        (InvalidValue, {"client_id": "fir", "quantity": -1}, "quantity: -1"),
        (InvalidValue, {"client_id": "two words"}, "client_id: 'two words'"),
        (InvalidValue, {"client_id": "fir", "sku": "No SKU"}, "sku: 'No SKU'"),
        (InvalidValue, {"client_id": "fir", "reserve": "much"}, "reserve: 'much'"),
        (InvalidValue, {"client_id": "fir", "reserve": {"Bad SKU": 1}}, "sku: 'Bad SKU'"),
        (InvalidValue, {"client_id": "fir", "key": ""}, "key: ''"),
        (InvalidValue, {"client_id": "fir", "key": "a\nb"}, "key: "),
    ]
    for kind, arguments, text in refusals:
        with pytest.raises(kind) as refused, reserve(shop, **arguments):
            pytest.fail("the block began")
        assert text in str(refused.value)
        assert "\n" not in str(refused.value)
    assert books(shop, "fir") == (25, 0, 0)


@pytest.mark.parametrize("away", ["redis_url", "database_url"])
def test_a_server_that_is_away_refuses_the_block(shop: Fleet, away: str) -> None:
    """Given no Redis, or no prices, then one line before the block begins: never silently open (L1)."""
    nowhere: dict[str, Any] = {
        "redis_url": "redis://:secret@127.0.0.1:1/0",
        "database_url": "postgresql://b:secret@127.0.0.1:1/b",
    }
    settings = dataclasses.replace(shop.settings, **{away: nowhere[away]})
    runtime = Runtime(lambda: settings)
    order = Order(client_id="gorse", sku=SKU, quantity=1, most=None, key="order")

    with pytest.raises(Unreachable) as refused, Block(lambda: Lifecycle(runtime), order):
        pytest.fail("the block began")

    assert f"billing_{away}" in str(refused.value)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)
    runtime.close()


def test_a_key_is_charged_once_for_ever(shop: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a key that was charged, then its block does not begin again, also when Redis remembers it no more (L3)."""
    shop.client("hazel", 100)
    with reserve(shop, "hazel", key="order-1") as run:
        pass
    (row,) = shop.wait_for_rows(1, "hazel")
    assert row.correlation_id == "order-1"

    def refused() -> bool:
        with pytest.raises(AlreadyCharged, match="order-1") as error, reserve(shop, "hazel", key="order-1"):
            pytest.fail("the block began")
        return error.value.args == ("hazel", "order-1")

    monkeypatch.setattr("billing.task.records.is_charged", lambda *_: False)
    assert refused()
    monkeypatch.undo()
    with redis.Redis.from_url(shop.settings.redis_url) as client:
        assert client.delete(*client.keys(f"*run:{run.run_id.hex}")) == 1
    assert refused()

    shop.client("holly", 100)
    for client_id, key in (("hazel", "order-2"), ("holly", "order-1")):
        with reserve(shop, client_id, key=key):
            pass
    assert (shop.balance("hazel").spent, shop.balance("holly").spent) == (20, 10)


def test_a_key_whose_block_failed_is_not_used_up(shop: Fleet) -> None:
    """Given a block that raised, when the same key comes again, then it is charged, as the same run."""
    shop.client("ivy", 100)
    with pytest.raises(ValueError), reserve(shop, "ivy", key="order") as failed:  # noqa: PT011 - the test's own
        raise ValueError
    with reserve(shop, "ivy", key="order") as run:
        pass

    assert run.run_id == failed.run_id
    assert len(shop.wait_for_rows(1, "ivy")) == 1
    assert books(shop, "ivy") == (90, 0, 10)


def test_a_key_is_not_the_run_of_a_task_of_that_id(shop: Fleet) -> None:
    """Given a task, when its id is a block's key, then both are charged: a task's part that another client pays."""
    shop.client("larch", 100)
    result = shop.send("ok", "larch")
    result.get(timeout=120)
    with reserve(shop, "larch", key=result.id):
        pass
    assert len(shop.wait_for_rows(2, "larch")) == 2


def test_a_block_is_entered_once(shop: Fleet) -> None:
    """Given a block that was left, when it is entered again, then it is refused: it was charged."""
    shop.client("pine", 100)
    block = reserve(shop, "pine")
    with block:
        pass
    with pytest.raises(Rejected, match="entered before"), block:
        pytest.fail("the block began")
    assert shop.balance("pine").spent == 10


def test_ctrl_c_while_billing_settles_still_charges(shop: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given work that is done, when Ctrl-C comes upon the settle, then it is raised, and the charge is made (L3)."""
    shop.client("quince", 100)
    settle = Buckets.settle
    interrupts = [KeyboardInterrupt]

    def interrupted(self: Buckets, *arguments: Any) -> Any:
        if interrupts:
            raise interrupts.pop()
        return settle(self, *arguments)

    monkeypatch.setattr(Buckets, "settle", interrupted)
    with pytest.raises(KeyboardInterrupt), reserve(shop, "quince") as run:
        pass

    wait_until(lambda: run.outcome is Outcome.CHARGED, "the charge is made")
    assert books(shop, "quince") == (90, 0, 10)
    assert len(shop.wait_for_rows(1, "quince")) == 1


def test_ctrl_c_while_billing_reserves_gives_the_credits_back(shop: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given an answer of Redis that came with Ctrl-C, then nothing stays held, nor renewed."""
    shop.client("rowan", 100)
    ask = Buckets.reserve

    def interrupted(self: Buckets, *arguments: Any, **options: Any) -> Any:
        ask(self, *arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Buckets, "reserve", interrupted)
    with pytest.raises(KeyboardInterrupt), reserve(shop, "rowan"):
        pytest.fail("the block began")

    assert books(shop, "rowan") == (100, 0, 0)
