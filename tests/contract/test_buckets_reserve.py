"""Reserving: the ceiling (L1), one hold per run, and who may take it over (L4)."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from billing.core.credits import CREDITS_MAX
from billing.core.errors import InvalidValue
from billing.core.shards import shard_of
from billing.credits.values import Hold, ReserveOutcome
from billing.credits.verbs import Verbs
from billing.events.usage_event import Draft, UsageLine, decode_draft, encode_draft
from tests.contract.laws import assert_laws
from tests.contract.making import a_client, a_hold, a_run, a_settlement
from tests.contract.servers import SHARDS, Server, buckets_at


def laws_of(buckets: Verbs, client_id: str = "acme") -> None:
    """Read a balance and hold it to the laws."""
    balance = buckets.balance(client_id)
    assert balance is not None
    assert_laws(balance)


def test_l1_of_100_threads_reserving_75_from_500_exactly_6_are_admitted(buckets: Verbs) -> None:
    a_client(buckets, 500)
    with ThreadPoolExecutor(100) as threads:
        replies = list(threads.map(lambda n: buckets.reserve(a_hold(a_run(task_id=f"t{n}"), 75)), range(100)))
    assert Counter(reply.outcome for reply in replies) == {
        ReserveOutcome.HELD: 6,
        ReserveOutcome.INSUFFICIENT: 94,
    }
    assert {reply.available for reply in replies if reply.outcome is ReserveOutcome.INSUFFICIENT} <= {50, 500 - 75 * 5}
    balance = buckets.balance("acme")
    assert balance is not None
    assert (balance.available, balance.held) == (50, 450)
    assert_laws(balance)


def _reserve_many(url: str, process: int) -> int:
    buckets = buckets_at(url)
    replies = [buckets.reserve(a_hold(a_run(task_id=f"{process}-{n}"), 75)) for n in range(25)]
    return sum(reply.outcome is ReserveOutcome.HELD for reply in replies)


@pytest.mark.raw("other processes connect to it")
def test_l1_of_4_processes_reserving_75_from_500_25_times_exactly_6_are_admitted(
    server: Server, buckets: Verbs
) -> None:
    a_client(buckets, 300, 200)
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        admitted = pool.starmap(_reserve_many, [(server.url, process) for process in range(4)])
    assert sum(admitted) == 6
    laws_of(buckets)


def test_l2_a_hold_says_which_grants_lent_it_in_burn_order(buckets: Verbs) -> None:
    a_client(buckets, 30, 20, 50)
    run = a_run()
    assert buckets.reserve(a_hold(run, 60)).outcome is ReserveOutcome.HELD
    (hold,) = buckets.held("acme")
    assert dict(hold.grants) == {1: 30, 2: 20, 3: 10}
    assert (hold.credits, hold.token, hold.sku, hold.epoch, hold.run_id) == (60, "first", "page", 1, run)
    assert (hold.head, hold.lines) == (a_hold(run, 60).head, a_hold(run, 60).lines)
    assert hold.deadline_ms - hold.created_ms == 60_000
    laws_of(buckets)


def test_l1_the_same_call_again_takes_nothing(buckets: Verbs) -> None:
    a_client(buckets, 100)
    hold = a_hold(a_run(), 60)
    assert buckets.reserve(hold).outcome is ReserveOutcome.HELD
    before = buckets.balance("acme")
    again = buckets.reserve(hold)
    assert (again.outcome, again.held, again.price_version) == (ReserveOutcome.TAKEN_OVER, 60, 1)
    assert buckets.balance("acme") == before


def test_l4_another_attempt_takes_the_hold_over_with_its_own_draft(buckets: Verbs) -> None:
    a_client(buckets, 100)
    run = a_run()
    first = a_hold(run, 60)
    buckets.reserve(first)
    reply = buckets.reserve(a_hold(run, 40, token="second"))
    assert (reply.outcome, reply.held, reply.head, reply.lines) == (
        ReserveOutcome.TAKEN_OVER,
        60,
        first.head,
        first.lines,
    )
    (hold,) = buckets.held("acme")
    assert (hold.token, hold.credits, dict(hold.grants), hold.lines) == (
        "second",
        60,
        {1: 60},
        a_hold(run, 40).lines,
    )
    laws_of(buckets)


def test_the_price_version_of_the_first_reserve_stands(buckets: Verbs) -> None:
    a_client(buckets, 100)
    run = a_run()
    first = a_hold(run, 60, price_version=7)
    buckets.reserve(first)
    reply = buckets.reserve(a_hold(run, 80, token="second", price_version=8))
    assert (reply.outcome, reply.price_version, reply.held) == (ReserveOutcome.TAKEN_OVER, 7, 80)
    (hold,) = buckets.held("acme")
    assert (hold.price_version, hold.lines, hold.token) == (7, first.lines, "second")


@pytest.mark.parametrize(("first", "then", "kept"), [(7, 9, 7), (7, None, 7), (None, 9, None), (7, 7, 7)])
def test_the_fixed_credits_of_the_first_reserve_stand(
    buckets: Verbs, first: int | None, then: int | None, kept: int | None
) -> None:
    """Given a deploy that changes `credits=`, when a run is taken over, twice by one call too, then its price stays."""

    def attempt(token: str, fixed: int | None) -> Hold:
        draft = Draft(priced_at=1, lines=(UsageLine(sku="page", quantity=1, credits=fixed or 5),), fixed=fixed)
        return msgspec.structs.replace(a_hold(run, 60, token=token), lines=encode_draft(draft))

    a_client(buckets, 100)
    run = a_run()
    buckets.reserve(attempt("first", first))
    again = attempt("second", then)
    replies = [buckets.reserve(again), buckets.reserve(again)]
    assert [decode_draft(reply.lines).fixed for reply in replies] == [kept, kept]
    (hold,) = buckets.held("acme")
    assert (hold.token, decode_draft(hold.lines).fixed) == ("second", kept)


def test_l1_a_larger_need_is_topped_up_from_what_is_available_or_refused(buckets: Verbs) -> None:
    a_client(buckets, 50, 50)
    run = a_run()
    buckets.reserve(a_hold(run, 30))
    assert buckets.reserve(a_hold(run, 70, token="second")).held == 70
    (hold,) = buckets.held("acme")
    assert dict(hold.grants) == {1: 50, 2: 20}
    refused = buckets.reserve(a_hold(run, 101, token="third"))
    assert (refused.outcome, refused.required, refused.available) == (ReserveOutcome.INSUFFICIENT, 101, 100)
    (hold,) = buckets.held("acme")
    assert (hold.token, sum(hold.grants.values())) == ("second", 70)
    laws_of(buckets)


def test_a_run_is_held_for_one_client_and_one_sku(buckets: Verbs) -> None:
    other = next(name for name in map(str, range(100)) if shard_of(name, SHARDS) == shard_of("acme", SHARDS))
    a_client(buckets, 100)
    a_client(buckets, 100, client_id=other)
    run = a_run()
    buckets.reserve(a_hold(run, 10))
    assert buckets.reserve(a_hold(run, 10, sku="search")).outcome is ReserveOutcome.CONFLICT
    assert buckets.reserve(a_hold(run, 10, client_id=other)).outcome is ReserveOutcome.CONFLICT
    balance = buckets.balance(other)
    assert balance is not None
    assert balance.held == 0


def test_l4_settled_is_final(buckets: Verbs) -> None:
    a_client(buckets, 100)
    run = a_run()
    buckets.reserve(a_hold(run, 10))
    buckets.settle(a_settlement(run, 10))
    assert buckets.reserve(a_hold(run, 10, token="second")).outcome is ReserveOutcome.SETTLED


def test_l1_a_client_that_owes_reserves_nothing_not_even_nothing(buckets: Verbs) -> None:
    a_client(buckets, 10)
    buckets.settle(a_settlement(a_run(), 30))
    for credits_ in (0, 1):
        reply = buckets.reserve(a_hold(a_run(task_id="t2"), credits_))
        assert (reply.outcome, reply.available) == (ReserveOutcome.INSUFFICIENT, 0)


def test_a_free_run_is_held_too(buckets: Verbs) -> None:
    a_client(buckets)
    assert buckets.reserve(a_hold(a_run(), 0)).outcome is ReserveOutcome.HELD
    laws_of(buckets)


def test_an_unknown_client_is_told_apart_from_a_poor_one(buckets: Verbs) -> None:
    assert buckets.reserve(a_hold(a_run(), 1)).outcome is ReserveOutcome.UNKNOWN_CLIENT
    assert buckets.balance("acme") is None


def test_l9_a_full_outbox_takes_no_new_work_but_answers_a_repeated_call(server: Server, buckets: Verbs) -> None:
    a_client(buckets, 1_000)
    hold = a_hold(a_run(task_id="held"), 10)
    small = server.buckets(outbox_entries_max=2)
    small.reserve(hold)
    for number in range(3):
        assert small.settle(a_settlement(a_run(task_id=f"t{number}"), 1)).entry_id is not None
        expected = ReserveOutcome.HELD if number == 0 else ReserveOutcome.OUTBOX_FULL
        assert small.reserve(a_hold(a_run(task_id=f"new-{number}"), 10)).outcome is expected
    assert small.outbox_depth(shard_of("acme", SHARDS)) == 3
    assert small.reserve(a_hold(hold.run_id, 10, token="second")).outcome is ReserveOutcome.OUTBOX_FULL
    assert small.reserve(hold).outcome is ReserveOutcome.TAKEN_OVER


def test_an_id_from_the_future_is_refused_and_one_without_time_is_not(buckets: Verbs) -> None:
    a_client(buckets, 100)
    day_ms = 86_400_000
    now_ms = int(time.time() * 1_000)
    ahead = a_run(at_milliseconds=now_ms + day_ms + 60_000)
    assert buckets.reserve(a_hold(ahead, 1)).outcome is ReserveOutcome.AHEAD
    assert buckets.reserve(a_hold(a_run(at_milliseconds=now_ms + day_ms - 60_000), 1)).outcome is ReserveOutcome.HELD
    assert buckets.reserve(a_hold(a_run(at_milliseconds=None), 1)).outcome is ReserveOutcome.HELD


@pytest.mark.parametrize("credits_", [-1, CREDITS_MAX + 1, 1.0, True, "5"])
def test_an_amount_that_is_not_whole_and_in_bounds_is_refused(buckets: Verbs, credits_: int) -> None:
    a_client(buckets, 100)
    hold = a_hold(a_run(), 1)
    with pytest.raises(InvalidValue, match="credits"):
        buckets.reserve(
            type(hold)(**{name: getattr(hold, name) for name in hold.__struct_fields__} | {"credits": credits_})
        )


def test_text_that_would_break_a_record_is_refused(buckets: Verbs) -> None:
    with pytest.raises(InvalidValue, match="printable"):
        buckets.reserve(a_hold(a_run(), 1, sku="a\nb"))
