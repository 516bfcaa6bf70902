"""Blocks in threads, coroutines, tasks, other blocks and forked children: each pays for its own, once (L3, L4)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import billing
from billing import BillableTask
from billing.core.errors import Conflict
from billing.credits.buckets import Buckets
from billing.credits.values import Hold, ReserveReply
from billing.task.usage import NotInARun
from tests.fleet.harness import Fleet
from tests.fleet.tasks import OTHER_SKU, SKU
from tests.integration.reserving import books, reserve, used_here

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def shop(running_fleet: Fleet) -> Iterator[Fleet]:
    """Use the fleet from this very process, and leave no connection behind."""
    with used_here(running_fleet) as fleet:
        yield fleet


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
