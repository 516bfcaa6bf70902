"""What a worker still owes is paid in order, tried again while Redis is away, and bounded (L3, L9)."""

from __future__ import annotations

import functools
import logging
import threading

import pytest

from billing.core.errors import Conflict, Recovering, Refusing, Unreachable
from billing.task.pending import ENTRIES_MAX, RIDERS_MIN, SETTLES_MAX, TRIES_MAX, Entry, Pending
from tests.waiting import LIMIT_SECONDS, wait_until


class Redis:
    """What is owed to, and what it has taken; `away` makes it refuse."""

    def __init__(self) -> None:
        self.away = False
        self.forgotten: list[Entry] = []
        self.settled: list[str] = []

    def forget(self, entries: list[Entry]) -> list[Entry]:
        """Take confirmed entries, or none of them."""
        if self.away:
            return entries
        self.forgotten += entries
        return []

    def settle(self, name: str) -> None:
        """Take a settle."""
        self._answer()
        self.settled.append(name)

    def _answer(self) -> None:
        if self.away:
            raise Unreachable("billing_redis_url: away")


@pytest.fixture
def redis() -> Redis:
    """Return a Redis that answers."""
    return Redis()


@pytest.fixture
def pending(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Pending:
    """Return debts that are paid only when the test says so."""
    monkeypatch.setattr(Pending, "_start", lambda _: None)
    return Pending(redis.forget, node_of)


def node_of(shard: int) -> str:
    """Return the node of a shard: even and odd ones are on two."""
    return "even" if shard % 2 == 0 else "odd"


def fail() -> None:
    """Refuse to be the last resort of a settle that Redis takes."""
    pytest.fail("charged without Redis")


def test_confirmed_entries_are_taken_once_and_in_order(pending: Pending) -> None:
    """Given confirmed entries, when a pipeline takes them, then it has all in order, and the next one has none."""
    for number in range(3):
        pending.confirmed((number, f"{number}-0"))

    assert pending.take_confirmed() == [(0, "0-0"), (1, "1-0"), (2, "2-0")]
    assert pending.take_confirmed() == []


def test_entries_that_redis_did_not_take_are_kept(pending: Pending, redis: Redis) -> None:
    """Given a Redis that is away, when entries are flushed, then they go with a later flush."""
    pending.confirmed((1, "1-0"))
    redis.away = True
    pending.pay()
    redis.away = False
    pending.pay()
    pending.pay()

    assert redis.forgotten == [(1, "1-0")]


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


def test_l10_what_could_not_ride_rides_with_no_other_reserve(pending: Pending, redis: Redis) -> None:
    """Given entries that a reserve gives back, then no later reserve takes them, and a flush does."""
    entries = [(1, f"{number}-0") for number in range(RIDERS_MIN)]
    pending.give_back(entries)
    assert pending.take_riders() == []
    pending.confirmed((1, "later"))
    assert pending.take_riders() == []
    pending.pay()
    assert redis.forgotten == [*entries, (1, "later")]


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


def test_a_thread_pays_within_seconds_without_further_work(redis: Redis) -> None:
    """Given a worker that has nothing more to do, then what it owes is paid all the same."""
    pending = Pending(redis.forget, node_of)
    try:
        pending.confirmed((1, "1-0"))
        pending.settle_later(lambda: redis.settle("late"), fail)
        wait_until(lambda: redis.forgotten and redis.settled, "the debts are paid")
    finally:
        pending._wake.set()


def test_entries_ride_with_a_reserve_only_once_they_are_enough(pending: Pending) -> None:
    """Given too few confirmed entries, then none rides: a flush takes them; given enough, then all ride together."""
    entries = [(1, f"{number}-0") for number in range(RIDERS_MIN)]
    for entry in entries[:-1]:
        pending.confirmed(entry)
    assert pending.take_riders() == []
    pending.confirmed(entries[-1])
    assert pending.take_riders() == entries
    assert pending.take_riders() == []
