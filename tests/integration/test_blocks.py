"""A block of `billing.reserve` is charged once when it ends well, and costs nothing when it does not (L1, L3, L4).

The laws of a task hold for a block: the same scripts, the same events, the same rows.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import threading
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import redis

import billing
from billing import AlreadyCharged, BillableTask, InsufficientCredits, InvalidValue, UnknownClient, UnknownSku
from billing.core.errors import BillingError, Conflict, Rejected, Unreachable
from billing.credits.buckets import Buckets
from billing.credits.values import Hold, ReserveReply
from billing.task.attachment import attachment_of
from billing.task.block import Block
from billing.task.lifecycle import Lifecycle
from billing.task.outcome import Outcome
from billing.task.outside import Order
from billing.task.runtime import Runtime
from billing.task.usage import NotInARun
from tests.fleet.harness import Fleet
from tests.fleet.tasks import OTHER_SKU, SKU
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def shop(running_fleet: Fleet) -> Iterator[Fleet]:
    """Use the fleet from this very process, and leave no connection behind."""
    yield running_fleet
    attachment = attachment_of(running_fleet.app)
    attachment.lifecycle.close()
    attachment.runtime.close()


def reserve(fleet: Fleet, client_id: str, sku: str = SKU, quantity: int = 1, **options: Any) -> Block:
    """Reserve with the settings of the test's fleet."""
    return billing.reserve(client_id, sku, quantity, app=fleet.app, **options)


def books(fleet: Fleet, client_id: str) -> tuple[int, int, int]:
    """Return what a client has available, held and spent."""
    balance = fleet.balance(client_id)
    return balance.available, balance.held, balance.spent


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


def test_two_at_once_under_one_key_are_one_charge(shop: Fleet) -> None:
    """Given a key whose block goes on, when it comes again, then both do the work and one pays; for one SKU (L3)."""
    shop.client("juniper", 100)
    with reserve(shop, "juniper", key="order") as first:
        with pytest.raises(Conflict), reserve(shop, "juniper", OTHER_SKU, key="order"):
            pytest.fail("the block began")
        with reserve(shop, "juniper", key="order") as second:
            assert books(shop, "juniper") == (90, 10, 0)

    assert first.run_id == second.run_id
    assert (second.credits_charged, first.credits_charged) == (10, None)
    assert len(shop.wait_for_rows(1, "juniper")) == 1
    assert books(shop, "juniper") == (90, 0, 10)


def test_a_key_is_not_the_run_of_a_task_of_that_id(shop: Fleet) -> None:
    """Given a task, when its id is a block's key, then both are charged: a task's part that another client pays."""
    shop.client("larch", 100)
    result = shop.send("ok", "larch")
    result.get(timeout=120)
    with reserve(shop, "larch", key=result.id):
        pass
    assert len(shop.wait_for_rows(2, "larch")) == 2


def test_several_at_once_in_one_process_record_for_themselves(shop: Fleet) -> None:
    """Given blocks in threads and one in another, then each pays for what was recorded in it, by whichever thread."""
    for number in range(4):
        shop.client(f"maple-{number}", 200)
    meet = threading.Barrier(3)

    def work(number: int) -> None:
        with reserve(shop, f"maple-{number}", quantity=9) as run:
            meet.wait(120)
            helpers = [threading.Thread(target=run.record, args=(1,)) for _ in range(number)]
            for helper in helpers:
                helper.start()
            for helper in helpers:
                helper.join()
            billing.usage.record(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    with reserve(shop, "maple-0", quantity=9), reserve(shop, "maple-1", quantity=9):
        billing.usage.record(5)
    for thread in threads:
        thread.join()

    assert [shop.balance(f"maple-{number}").spent for number in range(4)] == [90, 70, 40, 60]


def test_tasks_in_blocks_and_blocks_in_tasks_record_for_themselves(shop: Fleet) -> None:
    """Given a task that is run inside a block, and a block inside a task, then each pays for its own."""
    for client_id in ("nettle", "nutmeg"):
        shop.client(client_id, 200)

    def body(self: BillableTask, client_id: str) -> None:
        self.usage.record(1)
        with reserve(shop, "nettle", quantity=9):
            billing.usage.record(2)
            self.usage.record(1)
        billing.usage.record(1)

    sells: Any = shop.app.task(bind=True, base=BillableTask, shared=False, name="sells", sku=SKU)(body)
    with reserve(shop, "nettle", quantity=9):
        shop.app.tasks["lines"].apply(("nutmeg", 4), throw=True)
        sells.apply(("nutmeg",), throw=True)
        billing.usage.record(3)

    nettle, nutmeg = shop.wait_for_rows(2, "nettle"), shop.wait_for_rows(3, "nutmeg")
    assert sorted((row.sku, row.quantity) for row in nettle) == [(SKU, 2), (SKU, 3)]
    assert sorted((row.sku, row.quantity) for row in nutmeg) == [(OTHER_SKU, 4), (SKU, 1), (SKU, 3)]
    del shop.app.tasks["sells"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_block_in_a_child_that_was_forked_in_it_belongs_to_the_parent(shop: Fleet) -> None:
    """Given a fork inside a block, when the child leaves it, then the parent still holds, and is charged once (L4)."""
    shop.client("oak", 100)
    child = 0
    with contextlib.suppress(SystemExit), reserve(shop, "oak") as run:
        child = os.fork()
        if not child:
            with contextlib.suppress(NotInARun):
                run.record(5)
                os._exit(3)
            raise SystemExit
        assert os.waitpid(child, 0)[1] == 0
        assert books(shop, "oak") == (90, 10, 0)
    if not child:
        os._exit(0)

    assert books(shop, "oak") == (90, 0, 10)
    assert len(shop.wait_for_rows(1, "oak")) == 1


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


def test_async_blocks_are_charged_and_released_as_others_are(shop: Fleet) -> None:
    """Given ten coroutines at once, half of which fail, then five charges, each what its own coroutine recorded."""
    shop.client("sorrel", 200)

    async def work(number: int) -> None:
        async with reserve(shop, "sorrel", quantity=2):
            await asyncio.sleep(0)
            billing.usage.record(1)
            if number % 2:
                raise ValueError(number)

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(work(number) for number in range(10)), return_exceptions=True)

    results = asyncio.run(all_of_them())

    assert [result is None for result in results] == [True, False] * 5
    assert books(shop, "sorrel") == (150, 0, 50)
    assert len(shop.wait_for_rows(5, "sorrel")) == 5


def test_a_coroutine_that_is_cancelled_while_it_reserves_holds_nothing(
    shop: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a cancellation that comes before Redis' answer, then what was reserved is given back at once (L5)."""
    shop.client("teak", 100)
    ask = Buckets.reserve
    asked, may_answer = threading.Event(), threading.Event()

    def slow(self: Buckets, hold: Hold, **options: Any) -> ReserveReply:
        reply = ask(self, hold, **options)
        asked.set()
        assert may_answer.wait(120)
        return reply

    async def work() -> None:
        async with reserve(shop, "teak"):
            pytest.fail("the block began")

    async def cancelled() -> None:
        task = asyncio.create_task(work())
        await asyncio.to_thread(asked.wait, 30)
        assert books(shop, "teak") == (90, 10, 0)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        may_answer.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    monkeypatch.setattr(Buckets, "reserve", slow)
    asyncio.run(cancelled())

    assert books(shop, "teak") == (100, 0, 0)
