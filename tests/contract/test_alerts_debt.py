"""A client is told once that it owes more than its overdraft limit covers, in the very step that began it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from billing.credits.plan import BucketPlan, LedgerTerms
from billing.credits.posting import Posting, PostOutcome
from billing.credits.rebuilding import plan_bucket
from billing.credits.terms import ClientState, ClientTerms
from billing.credits.values import RebuildOutcome, ReserveOutcome, SettleOutcome
from billing.credits.verbs import Verbs
from tests.contract.alerting import SHARD, debts, raised, spend
from tests.contract.making import a_client, a_hold, a_run, a_settlement
from tests.contract.servers import Server


def settle(buckets: Verbs, credits: int, task_id: str) -> None:
    """Settle a run that nothing was held for."""
    reply = buckets.settle(a_settlement(a_run("acme", task_id), credits))
    assert reply.outcome is SettleOutcome.SETTLED


def allow(buckets: Verbs, limit: int) -> None:
    """Give acme an overdraft limit."""
    buckets.set_terms("acme", ClientTerms(state=ClientState.ACTIVE, overdraft_limit=limit))


def test_debt_is_told_when_it_begins_and_not_while_it_grows(buckets: Verbs) -> None:
    """Given 100 credits, when 150, 20 and 30 are settled, then the first debt is told, with who, when and how much."""
    a_client(buckets, 100)
    settle(buckets, 150, "first")
    settle(buckets, 20, "second")
    settle(buckets, 30, "third")
    assert debts(buckets) == [(50, 0)]
    (entry,) = [entry for entry in buckets.alerts(count=10) if entry.owed]
    assert (entry.client_id, entry.shard, entry.percent, entry.available) == ("acme", SHARD, 0, 0)
    assert entry.granted == 100
    assert 0 <= buckets.time_ms() - entry.occurred_ms < 60_000


def test_the_call_sent_again_tells_nothing_more(buckets: Verbs) -> None:
    a_client(buckets, 100)
    run = a_run()
    for _ in range(3):
        buckets.settle(a_settlement(run, 150, settlement_id="once"))
        buckets.adjust("acme", 7, 5)
    assert debts(buckets) == [(50, 0)]


def test_it_is_told_again_only_once_it_was_paid_off(buckets: Verbs) -> None:
    """Given a debt of 50, when a grant of 30 and then one of 100 come, then only a debt after that is told again."""
    a_client(buckets, 100)
    settle(buckets, 150, "first")
    buckets.grant("acme", 2, 30)
    settle(buckets, 10, "still in debt")
    assert debts(buckets) == [(50, 0)]
    buckets.grant("acme", 3, 100)
    settle(buckets, 80, "again")
    assert debts(buckets) == [(50, 0), (10, 0)]


def test_what_the_overdraft_limit_covers_is_no_debt(buckets: Verbs) -> None:
    """Given a limit of 200, then room that holds are lent and a debt of 200 are not told; the next credit is."""
    a_client(buckets, 100)
    allow(buckets, 200)
    run = a_run("acme", "all of it")
    assert buckets.reserve(a_hold(run, 300)).outcome is ReserveOutcome.HELD
    buckets.settle(a_settlement(run, 300))
    assert debts(buckets) == []
    settle(buckets, 1, "one more")
    settle(buckets, 1, "another")
    assert debts(buckets) == [(201, 200)]


def test_a_limit_that_falls_below_what_is_owed_begins_a_debt(buckets: Verbs) -> None:
    a_client(buckets, 100)
    allow(buckets, 200)
    settle(buckets, 250, "within")
    for limit in (150, 100, 50):
        allow(buckets, limit)
    assert debts(buckets) == [(150, 100)]
    allow(buckets, 200)
    allow(buckets, 0)
    assert debts(buckets) == [(150, 100), (150, 0)]


def test_an_adjustment_beyond_what_there_is_begins_a_debt(buckets: Verbs) -> None:
    a_client(buckets, 100)
    buckets.adjust("acme", 1, 60)
    assert debts(buckets) == []
    buckets.adjust("acme", 2, 60)
    buckets.adjust("acme", 3, 60)
    assert debts(buckets) == [(20, 0)]


def test_a_posting_beyond_what_there_is_begins_a_debt(buckets: Verbs) -> None:
    a_client(buckets, 100)
    spend(buckets, 90)
    for version, credits in ((1, 25), (2, 40)):
        row = Posting(grant_id=1, version=version, credits=credits, restored=0, entered=0)
        assert buckets.post("acme", 1, [row]) is PostOutcome.POSTED
    assert debts(buckets) == [(15, 0)]


def test_what_a_hold_gives_back_pays_and_a_new_debt_is_a_new_crossing(buckets: Verbs) -> None:
    """Given a hold of 50 and a debt of 30, when the hold is released, then it is paid, and the next is told."""
    a_client(buckets, 100)
    held = a_run(task_id="held")
    assert buckets.reserve(a_hold(held, 50)).outcome is ReserveOutcome.HELD
    settle(buckets, 80, "beyond")
    assert debts(buckets) == [(30, 0)]
    buckets.release("acme", held, "first")
    settle(buckets, 25, "beyond again")
    assert debts(buckets) == [(30, 0), (5, 0)]


@pytest.mark.parametrize("threads", [50])
def test_threads_that_cross_together_tell_one_debt(buckets: Verbs, threads: int) -> None:
    a_client(buckets, 10)
    start = threading.Barrier(threads)

    def one(number: int) -> None:
        start.wait()
        settle(buckets, 3, f"thread-{number}")

    running = [threading.Thread(target=one, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    ((owed, limit),) = debts(buckets)
    assert 0 < owed <= 3
    assert limit == 0


def plan(spent: int, limit: int = 0) -> BucketPlan:
    """Return the plan of acme's bucket: 100 granted, so much spent."""
    client = ClientTerms(state=ClientState.ACTIVE, overdraft_limit=limit)
    return plan_bucket(grants=[(1, 100)], spent={1: spent}, holds=[], known=LedgerTerms(client=client))


def rebuilt(buckets: Verbs, epoch: int, planned: BucketPlan) -> None:
    """Rebuild acme's bucket from a plan, twice, as rebuilders that race do."""
    buckets.close(SHARD)
    server = buckets.server_of(SHARD)[1]
    for _ in range(2):
        done = buckets.rebuild("acme", epoch, planned, server=server, asserts=buckets.asserts_of(SHARD))
        assert done is RebuildOutcome.REBUILT
    assert buckets.verify(SHARD, expected=server)


def test_l6_a_rebuild_repeats_no_debt_that_its_bucket_knew(buckets: Verbs) -> None:
    a_client(buckets, 100)
    settle(buckets, 150, "first")
    rebuilt(buckets, 2, plan(150))
    rebuilt(buckets, 3, plan(170))
    settle(buckets, 10, "more")
    assert debts(buckets) == [(50, 0)]


def test_l6_a_debt_that_the_log_knows_and_the_bucket_did_not_is_told_by_the_rebuild(buckets: Verbs) -> None:
    a_client(buckets, 100)
    spend(buckets, 10)
    rebuilt(buckets, 2, plan(150))
    assert debts(buckets) == [(50, 0)]
    rebuilt(buckets, 3, plan(100))
    rebuilt(buckets, 4, plan(120))
    assert debts(buckets) == [(50, 0), (20, 0)]


def test_l6_a_debt_within_the_limit_is_told_by_no_rebuild(buckets: Verbs) -> None:
    a_client(buckets, 100)
    rebuilt(buckets, 2, plan(150, limit=50))
    assert debts(buckets) == []


def test_l6_after_a_flush_a_client_in_debt_is_told_once_more(server: Server, buckets: Verbs) -> None:
    """Given a told debt and a Redis that lost everything, then the rebuild tells it once: never less, once more."""
    a_client(buckets, 100)
    settle(buckets, 150, "first")
    server.flush()
    rebuilt(buckets, 2, plan(150))
    rebuilt(buckets, 3, plan(150))
    assert debts(buckets) == [(50, 0)]
    assert raised(buckets) == []


def test_debts_next_to_the_largest_amount_are_exact(buckets: Verbs) -> None:
    buckets.open_client("acme")
    settle(buckets, 2**53 - 1, "all")
    assert debts(buckets) == [(2**53 - 1, 0)]


@pytest.mark.raw("what a reader of the release before makes of it")
def test_an_older_reader_takes_a_debt_for_the_end(server: Server, buckets: Verbs) -> None:
    a_client(buckets, 100)
    settle(buckets, 150, "first")
    client: Any = server.client()
    fields = client.xrevrange(f"{{billing:{SHARD}}}:alerts", count=1)[0][1]
    assert {int(fields[name]) for name in (b"percent", b"available")} == {0}
    assert set(fields) == {b"client", b"percent", b"available", b"granted", b"owed", b"limit", b"at", b"server"}
