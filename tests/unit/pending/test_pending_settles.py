"""Settles that Redis did not take are paid in order, a bounded number of times, and hold up no others (L3, L9, L10)."""

from __future__ import annotations

import functools
import logging

import pytest

from billing.core.errors import Conflict, Recovering, Refusing, Unreachable
from billing.task.pending import TRIES_MAX, Pending
from tests.unit.pending.owing import Redis, fail


def test_settles_are_tried_again_in_order_until_redis_takes_them(pending: Pending, redis: Redis) -> None:
    """Given finished work that Redis did not settle, then it is settled later, once, the oldest first (L3)."""
    redis.away = True
    for name in ("first", "second", "third"):
        pending.settle_later(functools.partial(redis.settle, name), fail)
    pending.pay()
    assert redis.settled == []

    redis.away = False
    pending.pay()
    pending.pay()

    assert redis.settled == ["first", "second", "third"]


def test_a_settle_that_is_refused_for_good_does_not_stop_the_others(
    pending: Pending, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Given a settle that is refused, then it is logged, and the next one is paid (L10)."""

    def refused() -> None:
        raise Conflict("run_id: 1: another client")

    pending.settle_later(refused, fail)
    pending.settle_later(lambda: redis.settle("second"), fail)
    with caplog.at_level(logging.ERROR):
        pending.pay()
        pending.pay()

    assert redis.settled == ["second"]
    assert [record.message for record in caplog.records if "refused" in record.message]
    assert len(caplog.records) == 1


def test_a_settle_that_fails_in_an_unforeseen_way_is_not_lost_nor_stops_the_others(
    pending: Pending, redis: Redis
) -> None:
    """Given a settle that raises what nobody foresaw, then it is tried again, and the others are paid (L3, L10)."""
    tries: list[str] = []

    def surprising() -> None:
        tries.append("try")
        if len(tries) == 1:
            raise RuntimeError("surprise")
        redis.settle("surprising")

    pending.settle_later(surprising, fail)
    pending.settle_later(lambda: redis.settle("second"), fail)
    for _ in range(3):
        pending.pay()

    assert sorted(redis.settled) == ["second", "surprising"]


def test_a_settle_that_never_works_is_given_up_after_a_bound(pending: Pending) -> None:
    """Given a settle that fails in the same unforeseen way for ever, then its tries are counted (L9)."""
    tries: list[str] = []

    def broken() -> None:
        tries.append("try")
        raise RuntimeError("always")

    pending.settle_later(broken, lambda: tries.append("resort"))
    for _ in range(TRIES_MAX + 5):
        pending.pay()

    assert tries == ["try"] * TRIES_MAX + ["resort"]


def test_a_shard_that_is_rebuilt_holds_up_no_other_shard(pending: Pending, redis: Redis) -> None:
    """Given a settle whose shard is recovering, then settles of other shards are paid meanwhile (L10)."""
    recovering = [True]

    def waits() -> None:
        if recovering:
            raise Recovering("client 'acme': its shard is being rebuilt")
        redis.settle("acme")

    pending.settle_later(waits, fail)
    pending.settle_later(lambda: redis.settle("globex"), fail)
    pending.pay()
    assert redis.settled == ["globex"]

    recovering.clear()
    pending.pay()
    assert redis.settled == ["globex", "acme"]


def test_l10_a_node_that_does_not_answer_holds_up_no_settle_of_another(pending: Pending, redis: Redis) -> None:
    """Given a silent node with the oldest settles, then it is asked once, the others are paid, and next time first."""
    asked: list[str] = []
    silent = [True]

    def settle(name: str, shard: int) -> None:
        asked.append(name)
        if silent and shard % 2 == 0:
            raise Unreachable("billing_redis_url: away")
        redis.settled.append(name)

    for shard in (0, 2, 1, 4, 3):
        pending.settle_later(functools.partial(settle, str(shard), shard), fail, shard=shard)
    pending.pay()
    assert (redis.settled, asked) == (["1", "3"], ["0", "1", "3"])

    pending.settle_later(functools.partial(settle, "5", 5), fail, shard=5)
    asked.clear()
    pending.pay()
    assert (redis.settled, asked) == (["1", "3", "5"], ["5", "0"])

    silent.clear()
    pending.pay()
    assert redis.settled == ["1", "3", "5", "0", "2", "4"]


def test_l10_a_server_that_refuses_one_shard_is_asked_for_its_others(pending: Pending, redis: Redis) -> None:
    """Given a slot that is being moved, then it is asked once, and the node's other slots are paid."""
    asked: list[str] = []

    def refused() -> None:
        asked.append("0")
        raise Refusing("billing_redis_url: the server takes no writes for now")

    for _ in range(3):
        pending.settle_later(refused, fail, shard=0)
    pending.settle_later(lambda: redis.settle("2"), fail, shard=2)
    pending.pay()
    assert (redis.settled, asked) == (["2"], ["0"])
