"""What the log says beyond a bucket's settles comes into it, once, while its shard works on (L2, L3, L6)."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from billing import admin
from billing.connections import postgres
from billing.core.credits import CREDITS_MAX
from billing.events.usage_event import UsageEvent
from billing.fulfillment.decoder import decode
from billing.fulfillment.postgres_log import PostgresUsageLog
from billing.ledger import postings, rebuilds
from billing.ledger.postings import ClientPostings
from billing.observability.doctor.buckets import examine_buckets
from billing.observability.doctor.finding import Verdict
from billing.reconciliation.continuous.status import read_status
from billing.recovery.postings import apply_posting, apply_postings
from billing.task.runtime import Runtime
from tests.integration import killed_consumer
from tests.integration.consuming import execute, query, rows, until_rows
from tests.integration.granting import balance_of, grant, rebuild
from tests.integration.posting import SHARD, assert_at_work, direct, forget_run, publish, settled, sums
from tests.integration.recovering import Business
from tests.usage_events import delivered
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_given_a_late_direct_event_when_it_arrives_then_the_grants_pay_it_in_burn_order_while_the_shard_works_on(
    business: Business,
) -> None:
    """L3: charged once, by grants that the log's row names, however often the event comes."""
    first, second = grant(business, 30, "k", priority=1), grant(business, 100, "l")
    business.hold("acme", 10, "other")
    with business.consuming():
        publish(business, direct(45, "a"))
        until_rows(business.settings, 1)
        publish(business, direct(45, "a"))
        business.settle("acme", 1, "marks the end")
        until_rows(business.settings, 2)
        assert apply_postings(business.runtime) == 1
        assert apply_postings(business.runtime) == 0
    [(paid,)] = query(business.settings, "SELECT grants FROM usage_history WHERE epoch = 0")
    assert paid == [{"grant": first.grant_id, "credits": 30}, {"grant": second.grant_id, "credits": 15}]
    assert sums(assert_at_work(business)) == (74, 10, 46, 0)


def test_given_a_direct_event_that_comes_again_beside_a_new_one_then_it_takes_nothing_from_what_pays_that(
    business: Business,
) -> None:
    """L2: of one batch, what is a row already has paid; what its grant has left pays the other run, to the credit."""
    given = grant(business, 60, "k")
    log = PostgresUsageLog(lambda: postgres.connect(business.settings), shards=business.settings.shards)
    known, new = (delivered(cast("UsageEvent", decode(direct(*one)))) for one in ((45, "a"), (15, "b")))
    try:
        log.write([known])
        assert log.write([known, new]).duplicates == 1
    finally:
        log.close()
    paid = query(business.settings, "SELECT grants FROM usage_history ORDER BY credits")
    assert [row[0] for row in paid] == [[{"grant": given.grant_id, "credits": credits_}] for credits_ in (15, 45)]


def test_given_credits_that_were_adjusted_away_when_a_direct_event_arrives_then_they_pay_nothing(
    business: Business,
) -> None:
    """L2: what the ledger has entered of a grant is not there any more; the rest of the charge is debt."""
    given = grant(business, 60, "k")
    _, applied = admin.adjust_credits(business.settings, "acme", -50, key="correction")
    assert applied
    with business.consuming():
        publish(business, direct(30, "a"))
        until_rows(business.settings, 1)
    [(paid,)] = query(business.settings, "SELECT grants FROM usage_history")
    assert paid == [{"grant": given.grant_id, "credits": 10}, {"grant": 0, "credits": 20}]


def test_given_a_client_with_restricted_grants_alone_when_a_direct_event_arrives_then_they_pay_it(
    business: Business,
) -> None:
    grant(business, 30, "k", skus=["page"])
    with business.consuming():
        publish(business, direct(20, "a"))
        until_rows(business.settings, 1)
        assert apply_postings(business.runtime) == 1
    assert sums(assert_at_work(business)) == (10, 0, 20, 0)


def test_given_a_settlement_that_redis_took_though_its_answer_was_lost_when_the_direct_event_is_first_then_one_stands(
    business: Business,
) -> None:
    """L3: both are of one settlement id; the bucket has taken it, and gives back what the log does not say."""
    grant(business, 100, "k")
    event = settled(business, 40, "a", settlement_id="same")
    with business.consuming():
        publish(business, direct(40, "a", settlement_id="same"))
        until_rows(business.settings, 1)
        assert apply_postings(business.runtime) == 1
        assert sums(balance_of(business)) == (20, 0, 80, 0)
        publish(business, event)
        wait_until(lambda: apply_postings(business.runtime) == 1, "it is given back")
    assert sums(assert_at_work(business)) == (60, 0, 40, 0)


def test_given_a_run_that_is_settled_again_after_it_was_forgotten_then_its_second_charge_is_given_back_once(
    business: Business,
) -> None:
    grant(business, 100, "k")
    events = [settled(business, 30, "a")]
    forget_run(business, "a")
    events.append(settled(business, 25, "a"))
    assert sums(balance_of(business)) == (45, 0, 55, 0)
    with business.consuming():
        for event in (*events, events[1], events[0]):
            publish(business, event)
        business.settle("acme", 1, "marks the end")
        until_rows(business.settings, 2)
        assert apply_postings(business.runtime) == 1
    assert sums(assert_at_work(business)) == (69, 0, 31, 0)


def test_given_an_event_of_an_epoch_that_is_over_when_it_arrives_then_its_grants_pay_without_another_rebuild(
    business: Business,
) -> None:
    """L6: also where a run holds what it was to take: that is debt until the hold comes back."""
    grant(business, 30, "k")
    grant(business, 50, "l")
    late = settled(business, 20, "late")
    with business.consuming():
        business.lose()
        assert business.rebuilder.step() == 1
        business.hold("acme", 25, "holder")
        publish(business, late)
        until_rows(business.settings, 1)
        assert apply_postings(business.runtime) == 1
    balance = assert_at_work(business, epoch=2)
    assert sums(balance) == (35, 25, 20, 0)
    assert list(balance.beyond.values()) == [15]


def test_given_a_posting_when_redis_is_lost_before_or_after_it_was_applied_then_the_sums_are_the_same(
    business: Business,
) -> None:
    """L6: a rebuild has the log; what was posted to an older epoch is void, and removed."""
    grant(business, 30, "k")
    with business.consuming():
        publish(business, direct(20, "a"))
        until_rows(business.settings, 1)
        rebuild(business)
        assert sums(balance_of(business)) == (10, 0, 20, 0)
        assert apply_postings(business.runtime) == 0
        publish(business, direct(15, "b"))
        until_rows(business.settings, 2)
        assert apply_postings(business.runtime) == 1
        rebuild(business)
    assert sums(assert_at_work(business, epoch=3)) == (0, 0, 35, 5)
    assert query(business.settings, "SELECT count(*) FROM posting") == [(0,)]


def test_given_two_workers_and_a_dead_ones_old_total_when_they_apply_then_each_credit_is_taken_once(
    business: Business,
) -> None:
    grant(business, 100, "k")
    rivals = [Runtime(lambda: business.settings) for _ in range(2)]
    with business.consuming():
        publish(business, direct(20, "a"))
        until_rows(business.settings, 1)
        with business.runtime.engine.connect() as connection:
            [old] = postings.waiting(connection, 10)
        publish(business, direct(5, "b"))
        until_rows(business.settings, 2)
    start = threading.Barrier(3)

    def apply(runtime: Runtime) -> int:
        start.wait(10)
        return apply_postings(runtime)

    def apply_old(row: ClientPostings) -> bool:
        start.wait(10)
        return apply_posting(business.runtime, row)

    with ThreadPoolExecutor(3) as pool:
        done = [pool.submit(apply, runtime) for runtime in rivals]
        pool.submit(apply_old, old).result()
        assert {future.result() for future in done} <= {0, 1}
    apply_posting(business.runtime, old)
    for runtime in rivals:
        runtime.close()
    apply_postings(business.runtime)
    assert sums(assert_at_work(business)) == (75, 0, 25, 0)


@pytest.mark.parametrize("point", ["before commit", "after commit", "after ack"])
def test_given_a_consumer_that_is_killed_around_its_commit_when_another_goes_on_then_the_charge_is_posted_once(
    business: Business, point: str
) -> None:
    grant(business, 100, "k")
    twice = [settled(business, 30, "a")]
    forget_run(business, "a")
    twice.append(settled(business, 30, "a"))
    for event in (*twice, direct(20, "b")):
        publish(business, event)
    given = json.dumps(dataclasses.asdict(business.settings))
    command = [sys.executable, "-m", killed_consumer.__name__, given, point, "1"]
    assert subprocess.run(command, check=False, cwd=ROOT).returncode == -9
    with business.consuming():
        business.settle("acme", 1, "marks the end")
        until_rows(business.settings, 3)
        wait_until(lambda: apply_postings(business.runtime) == 0 and rows(business.settings) == 3, "it is applied")
    assert sums(assert_at_work(business)) == (49, 0, 51, 0)


def test_given_a_bucket_that_never_spent_what_is_given_back_when_posted_then_its_shard_is_rebuilt_from_the_log(
    business: Business,
) -> None:
    """L6: a posting never takes a bucket below zero; the books decide."""
    grant(business, 100, "k")
    with business.runtime.engine.begin() as connection:
        postings.add(connection, "acme", 1, {1: -5})
    assert apply_postings(business.runtime) == 0
    with business.runtime.engine.connect() as connection:
        assert "uncovered" in rebuilds.requested(connection)[SHARD]
    with business.consuming():
        assert business.rebuilder.step() == 1
    assert sums(assert_at_work(business, epoch=2)) == (100, 0, 0, 0)


def test_given_a_posting_to_a_grant_that_is_on_its_way_when_applied_then_it_waits_for_the_grant(
    business: Business,
) -> None:
    grant(business, 10, "k")
    late = grant(business, 50, "l", skus=["page"])
    execute(business.settings, f"UPDATE credit_grant SET applied_at = NULL WHERE grant_id = {late.grant_id}")
    with business.runtime.engine.begin() as connection:
        postings.add(connection, "acme", 1, {late.grant_id: 5})
        assert postings.waiting(connection, 10) == []
    execute(business.settings, "UPDATE credit_grant SET applied_at = now()")
    with business.runtime.engine.connect() as connection:
        assert [row.grant_id for row in postings.waiting(connection, 10)[0].rows] == [late.grant_id]


def test_given_direct_events_that_no_bucket_could_count_when_applied_then_others_have_their_turn_and_it_is_named(
    business: Business, caplog: pytest.LogCaptureFixture
) -> None:
    """L10: what is above 2^53 - 1 waits for itself; doctor and status say so, the log once."""
    business.client("beta", 100)
    with business.consuming():
        publish(business, direct(CREDITS_MAX, "a"))
        publish(business, direct(CREDITS_MAX, "b"))
        until_rows(business.settings, 2)
    with business.runtime.engine.begin() as connection:
        postings.add(connection, "beta", 1, {0: 5})
    with caplog.at_level(logging.WARNING, "billing.recovery"):
        assert apply_postings(business.runtime) == 1
        assert apply_postings(business.runtime) == 0
    assert business.balance("beta").debt == 5
    with business.runtime.engine.connect() as connection:
        assert [row.client_id for row in postings.waiting(connection, 10)] == ["acme"]
    assert [line.getMessage() for line in caplog.records] == [
        "billing: a posting to client acme is not applied: TOO_LARGE"
    ]
    status = read_status(business.runtime)
    assert [(one.client_id, one.grant_id, one.reason) for one in status.refused] == [("acme", 0, "TOO_LARGE")]
    assert not status.ok
    [found] = [one for one in examine_buckets(business.runtime) if "refused" in one.seen]
    assert (found.verdict, "client acme, grant 0: TOO_LARGE" in found.seen) == (Verdict.FAIL, True)
    with business.runtime.engine.begin() as connection:
        postings.add(connection, "acme", 1, {0: -2 * CREDITS_MAX})
    assert apply_postings(business.runtime) == 1
    assert read_status(business.runtime).refused == ()
