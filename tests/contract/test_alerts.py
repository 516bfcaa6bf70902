"""A client is told once that it runs low and once that it ran out, in the very step that did it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from uuid import UUID

import pytest

from billing.credits.values import ExpireOutcome, ReleaseOutcome, ReserveOutcome
from billing.credits.verbs import Verbs
from tests.contract.alerting import SHARD, raised, reserve, spend
from tests.contract.making import a_client, a_hold, a_run, a_settlement
from tests.contract.servers import LEASE_SECONDS, Server


def test_each_threshold_is_alerted_once_on_the_way_down(buckets: Verbs) -> None:
    """Given 1,000 credits, when they are spent by tens, then 20 %, 5 % and the end are alerted, each once."""
    a_client(buckets, 1_000)
    spend(buckets, *[10] * 100)
    assert raised(buckets) == [(20, 190), (5, 40), (0, 0)]


def test_exactly_at_a_threshold_nothing_is_alerted(buckets: Verbs) -> None:
    a_client(buckets, 1_000)
    spend(buckets, 800)
    assert raised(buckets) == []
    spend(buckets, 1)
    assert raised(buckets) == [(20, 199)]


def test_of_several_thresholds_in_one_step_the_lowest_wins_and_the_others_are_done(buckets: Verbs) -> None:
    a_client(buckets, 1_000)
    spend(buckets, 960)
    assert raised(buckets) == [(5, 40)]
    spend(buckets, 40)
    assert raised(buckets) == [(5, 40), (0, 0)]
    assert reserve(buckets, 1) is ReserveOutcome.INSUFFICIENT
    assert raised(buckets) == [(5, 40), (0, 0)]


def test_an_alert_says_who_when_and_of_how_much(buckets: Verbs) -> None:
    a_client(buckets, 600, 400)
    spend(buckets, 900)
    (entry,) = buckets.alerts(count=10)
    assert (entry.client_id, entry.shard, entry.percent, entry.available, entry.granted) == (
        "acme",
        SHARD,
        20,
        100,
        1_000,
    )
    assert 0 <= buckets.time_ms() - entry.occurred_ms < 60_000
    assert entry.server == buckets.server_of(SHARD)[1]


def test_ten_thousand_refusals_are_one_alert(buckets: Verbs) -> None:
    """L9, L10: a client that is refused over and over fills nothing."""
    a_client(buckets, 5)
    for number in range(10_000):
        assert reserve(buckets, 10, f"task-{number}") is ReserveOutcome.INSUFFICIENT
    assert raised(buckets) == [(0, 5)]


def test_a_refusal_with_much_left_does_not_silence_the_thresholds(buckets: Verbs) -> None:
    """Given one task that is far too dear, then the low balance is alerted later all the same."""
    a_client(buckets, 1_000)
    assert reserve(buckets, 5_000) is ReserveOutcome.INSUFFICIENT
    spend(buckets, 850, 140, 10)
    assert raised(buckets) == [(0, 1_000), (20, 150), (5, 10)]


def test_a_client_without_any_grant_is_told_once(buckets: Verbs) -> None:
    buckets.open_client("acme")
    assert reserve(buckets, 1, "a") is reserve(buckets, 1, "b") is ReserveOutcome.INSUFFICIENT
    assert raised(buckets) == [(0, 0)]
    assert buckets.alerts(count=1)[0].granted == 0


@pytest.mark.parametrize("threads", [100])
def test_a_hundred_threads_at_the_threshold_raise_one_alert(server: Server, buckets: Verbs, threads: int) -> None:
    a_client(buckets, 1_000)
    spend(buckets, 795)
    start = threading.Barrier(threads)
    outcomes: list[ReserveOutcome] = []

    def one(number: int) -> None:
        start.wait()
        outcomes.append(reserve(buckets, 1, f"thread-{number}"))

    running = [threading.Thread(target=one, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert outcomes.count(ReserveOutcome.HELD) == 100
    assert raised(buckets) == [(20, 199)]


@pytest.mark.parametrize("verb", ["reserve", "settle"])
def test_the_same_call_again_alerts_nothing_more(buckets: Verbs, verb: str) -> None:
    """Given an answer that was lost, when the call is sent again, then there is one alert."""
    a_client(buckets, 100)
    run = a_run()
    for _ in range(3):
        if verb == "reserve":
            buckets.reserve(a_hold(run, 90))
        else:
            buckets.settle(a_settlement(run, 90, settlement_id="once"))
    assert raised(buckets) == [(20, 10)]


def test_a_settle_beyond_its_hold_alerts_what_it_crossed(buckets: Verbs) -> None:
    a_client(buckets, 100)
    run = a_run()
    buckets.reserve(a_hold(run, 10))
    assert raised(buckets) == []
    buckets.settle(a_settlement(run, 85))
    assert raised(buckets) == [(20, 15)]


def test_debt_is_the_end(buckets: Verbs) -> None:
    a_client(buckets, 100)
    assert buckets.settle(a_settlement(a_run(), 150)).debt == 50
    assert raised(buckets) == [(0, 0)]


@pytest.mark.parametrize("ending", ["release", "expire", "settle"])
def test_what_comes_back_arms_a_threshold_again_only_well_above_it(server: Server, buckets: Verbs, ending: str) -> None:
    """Given 20 % alerted by a hold, when it ends at 29 % nothing is armed, at 30 % it is."""
    for given, again in ((290, []), (300, [(20, 199)])):
        server.flush()
        buckets = server.buckets(lease_seconds=LEASE_SECONDS)
        a_client(buckets, 1_000)
        spend(buckets, 1_000 - given)
        run = a_run(task_id="hold")
        buckets.reserve(a_hold(run, given - 199))
        assert raised(buckets) == [(20, 199)]
        if ending == "release":
            assert buckets.release("acme", run, "first") is ReleaseOutcome.RELEASED
        elif ending == "settle":
            buckets.settle(a_settlement(run, 0))
        else:
            _expire(server, buckets, run)
        assert raised(buckets) == [(20, 199)], "giving back alerts nothing"
        buckets.reserve(a_hold(a_run(task_id="next"), given - 199))
        assert raised(buckets) == [(20, 199), *again], given


def _expire(server: Server, buckets: Verbs, run: UUID) -> None:
    """Let a hold's deadline pass and expire it."""
    server.end_lease("acme", run)
    assert buckets.expire("acme", run) is ExpireOutcome.EXPIRED


@pytest.mark.usefixtures("buckets")
@pytest.mark.parametrize("percent", [51, 67, 80, 99])
def test_a_high_threshold_is_alerted_once_for_each_grant(server: Server, percent: int) -> None:
    """Given a threshold to which no balance can come half as much again, then a new grant arms it all the same."""
    buckets = server.buckets(alert_percents=(percent,))
    a_client(buckets, 1_000)
    spend(buckets, 1_000)
    for grant in (2, 3):
        buckets.grant("acme", grant, 1_000)
        spend(buckets, 700)
        spend(buckets, 300)
    assert [found for found, _ in raised(buckets)] == [0, percent, 0, percent, 0]


def test_the_end_is_alerted_again_only_after_a_grant(buckets: Verbs) -> None:
    """Given a client whose last credits come and go with a hold, then it is told once, and once after each grant."""
    a_client(buckets, 100)
    for number in range(5):
        run = a_run(task_id=f"turn-{number}")
        buckets.reserve(a_hold(run, 100))
        buckets.release("acme", run, "first")
    assert [percent for percent, _ in raised(buckets)].count(0) == 1
    buckets.grant("acme", 2, 50)
    assert reserve(buckets, 1_000, "too dear") is ReserveOutcome.INSUFFICIENT
    assert reserve(buckets, 1_000, "too dear again") is ReserveOutcome.INSUFFICIENT
    assert [percent for percent, _ in raised(buckets)].count(0) == 2


def test_a_grant_sent_again_arms_nothing(buckets: Verbs) -> None:
    a_client(buckets, 100)
    spend(buckets, 100)
    buckets.grant("acme", 1, 100)
    assert reserve(buckets, 1, "refused") is ReserveOutcome.INSUFFICIENT
    assert raised(buckets) == [(0, 0)]


def test_a_grant_that_only_pays_debt_leaves_the_end_alerted(buckets: Verbs) -> None:
    buckets.open_client("acme")
    buckets.settle(a_settlement(a_run(), 80))
    assert reserve(buckets, 1, "refused") is ReserveOutcome.INSUFFICIENT
    buckets.grant("acme", 1, 80)
    assert reserve(buckets, 1, "refused again") is ReserveOutcome.INSUFFICIENT
    assert raised(buckets) == [(0, 0)]


def test_a_grant_too_small_to_lift_the_balance_does_not_alert_twice(buckets: Verbs) -> None:
    """Given 3 % left and both thresholds alerted, when a tenth is granted, then 5 % is armed again and 20 % is not."""
    a_client(buckets, 1_000)
    spend(buckets, 850, 120)
    assert raised(buckets) == [(20, 150), (5, 30)]
    buckets.grant("acme", 2, 100)
    spend(buckets, 10)
    assert raised(buckets) == [(20, 150), (5, 30)]
    spend(buckets, 70)
    assert raised(buckets) == [(20, 150), (5, 30), (5, 50)]


@pytest.mark.parametrize(("granted", "expected"), [(1, [(0, 0)]), (3, [(0, 0)]), (10, [(20, 1), (0, 0)])])
def test_thresholds_of_small_grants_are_rounded_up_and_the_end_wins(
    buckets: Verbs, granted: int, expected: Sequence[tuple[int, int]]
) -> None:
    a_client(buckets, granted)
    spend(buckets, *[1] * granted)
    assert raised(buckets) == expected


def test_work_at_no_price_alerts_nothing(buckets: Verbs) -> None:
    """Given a bucket without credits, when work that costs nothing is done, then nobody is told that it ran out."""
    buckets.open_client("acme")
    run = a_run()
    assert buckets.reserve(a_hold(run, 0)).outcome is ReserveOutcome.HELD
    buckets.settle(a_settlement(run, 0))
    assert raised(buckets) == []


def test_the_largest_amounts_are_exact(buckets: Verbs) -> None:
    largest = 2**53 - 1
    a_client(buckets, largest)
    mark = -(-largest * 20 // 100)
    spend(buckets, largest - mark)
    assert raised(buckets) == []
    spend(buckets, 1)
    assert raised(buckets) == [(20, mark - 1)]


@pytest.mark.usefixtures("buckets")
def test_no_percents_alert_the_end_alone(server: Server) -> None:
    quiet = server.buckets(alert_percents=())
    a_client(quiet, 100)
    spend(quiet, 99, 1)
    assert raised(quiet) == [(0, 0)]
