"""Nothing that is owed is lost: not at a bound, not in an idle process, and not in one that ends (L3, L9)."""

from __future__ import annotations

import functools
import threading

import pytest

from billing.core.errors import Unreachable
from billing.task.pending import ENTRIES_MAX, SETTLES_MAX, Pending
from tests.unit.pending.owing import Redis, fail, node_of
from tests.waiting import LIMIT_SECONDS, wait_until


def test_both_kinds_of_debt_are_bounded(pending: Pending, caplog: pytest.LogCaptureFixture, redis: Redis) -> None:
    """Given a Redis that stays away, then entries and settles are kept up to a bound, the newest ones (L9)."""
    for number in range(ENTRIES_MAX + 5):
        pending.confirmed((0, str(number)))
    taken = pending.take_confirmed()
    assert (len(taken), taken[-1]) == (ENTRIES_MAX, (0, str(ENTRIES_MAX + 4)))

    resorts: list[int] = []
    for number in range(SETTLES_MAX + 1):
        settle = functools.partial(redis.settle, str(number))
        pending.settle_later(settle, functools.partial(resorts.append, number))
    pending.pay()
    assert redis.settled == [str(number) for number in range(1, SETTLES_MAX + 1)]
    assert resorts == [0]
    assert "charged without it" in caplog.text


def test_a_thread_pays_within_seconds_without_further_work(redis: Redis) -> None:
    """Given a worker that has nothing more to do, then what it owes is paid all the same."""
    pending = Pending(redis.forget, node_of)
    try:
        pending.confirmed((1, "1-0"))
        pending.settle_later(lambda: redis.settle("late"), fail)
        wait_until(lambda: redis.forgotten and redis.settled, "the debts are paid")
    finally:
        pending._wake.set()


def test_what_redis_does_not_take_before_the_process_ends_is_charged_without_it(pending: Pending, redis: Redis) -> None:
    """Given a Redis that stays away, when the process ends, then each kept settle is charged otherwise, once (L3)."""
    redis.away = True
    resorts: list[str] = []
    pending.settle_later(lambda: redis.settle("first"), lambda: resorts.append("first"))
    pending.settle_later(lambda: redis.settle("second"), lambda: resorts.append("second"))

    pending.close(0)
    redis.away = False
    pending.pay()

    assert resorts == ["first", "second"]
    assert redis.settled == []


def test_l9_a_payment_that_stands_still_holds_up_no_end_of_the_process(pending: Pending) -> None:
    """Given a try of a settle that does not return, when the process ends, then all are charged otherwise, once."""
    inside, go_on = threading.Event(), threading.Event()
    resorts: list[str] = []

    def stands_still() -> None:
        inside.set()
        go_on.wait(LIMIT_SECONDS)
        raise Unreachable("away")

    pending.settle_later(stands_still, lambda: resorts.append("tried"))
    pending.settle_later(fail, lambda: resorts.append("waiting"), shard=2)
    payment = threading.Thread(target=pending.pay, daemon=True)
    payment.start()
    assert inside.wait(LIMIT_SECONDS)
    end = threading.Thread(target=pending.close, args=(0.1,), daemon=True)
    end.start()
    try:
        end.join(LIMIT_SECONDS)
        assert resorts == ["tried", "waiting"]
    finally:
        go_on.set()
    payment.join(LIMIT_SECONDS)
    assert not payment.is_alive()
    pending.close(0)
    assert resorts == ["tried", "waiting"]


def test_a_process_that_ends_waits_for_redis_first(pending: Pending, redis: Redis) -> None:
    """Given a Redis that comes back within the bound, when the process ends, then it takes what is owed (L3)."""
    answers = iter([True, True, False])

    def settle() -> None:
        redis.away = next(answers)
        redis.settle("late")

    pending.settle_later(settle, fail)
    pending.close(30)

    assert redis.settled == ["late"]
