"""Grants that end while something is given back to them, or while an adjustment is half applied (L2, L6, L7)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import redis
import sqlalchemy
from sqlalchemy import Connection

from billing import admin
from billing.core.errors import Unreachable
from billing.credits.granting import Lapsed
from billing.credits.posting import Posting, PostOutcome
from billing.ledger import endings, locks
from billing.ledger.changes import take_credits
from billing.recovery import lapsing
from billing.recovery.changes import apply_changes
from billing.recovery.lapsing import lapse_grants
from billing.recovery.postings import apply_postings
from billing.schema.advisory import Guard
from tests.integration.consuming import until_rows
from tests.integration.granting import balance_of, entries, grant, next_turn, rebuild
from tests.integration.posting import SHARD, assert_at_work, direct, forget_run, publish, settled, sums
from tests.integration.recovering import Business

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_given_what_was_given_back_after_a_grant_had_ended_then_the_ledger_enters_that_too(
    business: Business,
) -> None:
    """L7: the entry stays, a further one tells the rest; bucket, ledger and a rebuild say the same."""
    row = grant(business, 100, "k")
    grant(business, 50, "l")
    events = [settled(business, 30, "a")]
    forget_run(business, "a")
    events.append(settled(business, 30, "a"))
    admin.void(business.settings, row.grant_id)
    assert lapse_grants(business.runtime) == 1
    with business.consuming():
        for event in events:
            publish(business, event)
        business.settle("acme", 1, "marks the end")
        until_rows(business.settings, 2)
        assert apply_postings(business.runtime) == 1
        assert lapse_grants(business.runtime) == 1
        assert entries(business)[2:] == [("void", -40), ("void", -30)]
        assert sums(assert_at_work(business)) == (49, 0, 31, 0)
        rebuild(business)
    assert lapse_grants(business.runtime) == 0
    assert sums(assert_at_work(business, epoch=2)) == (49, 0, 31, 0)


def test_given_what_is_given_back_while_the_ledger_enters_a_grants_end_then_a_further_entry_has_it(
    business: Business, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L2, L7: the posting comes after the bucket named its final amount, and before that grant is forgotten."""
    row = grant(business, 100, "k")
    business.settle("acme", 30, "a", publish=False)
    admin.void(business.settings, row.grant_id)

    def entered(connection: Connection, lapsed: Sequence[Lapsed]) -> list[Lapsed]:
        found = endings.enter_endings(connection, lapsed)
        back = Posting(grant_id=row.grant_id, version=1, credits=-30)
        assert business.runtime.buckets.post("acme", 1, [back]) is PostOutcome.POSTED
        return found

    with monkeypatch.context() as patched:
        patched.setattr(lapsing, "enter_endings", entered)
        assert lapse_grants(business.runtime) == 1
    assert lapse_grants(business.runtime) == 1
    assert entries(business)[1:] == [("void", -70), ("void", -30)]
    with redis.Redis.from_url(business.settings.redis_url) as client:
        assert client.zcard(f"{{billing:{SHARD}}}:expiries") == 0, "it is forgotten then"


def test_given_an_adjustment_that_died_before_its_entry_and_a_grant_that_ends_when_redis_is_lost_then_it_takes_once(
    business: Business,
) -> None:
    """The end waits for the adjustment, which may have taken a part of the very grant."""
    row = grant(business, 100, "k", priority=1)
    grant(business, 50, "l")
    with business.runtime.engine.begin() as connection:
        change, _ = take_credits(connection, "acme", 10, "fix")
    business.runtime.buckets.adjust("acme", change.change_id, 10)
    admin.void(business.settings, row.grant_id)
    assert lapse_grants(business.runtime) == 0, "its client has an open adjustment"
    assert entries(business)[2:] == []
    assert apply_changes(business.runtime) == 1
    execute_lease_over(business)
    assert lapse_grants(business.runtime) == 1
    assert entries(business)[2:] == [("adjust", -10), ("void", -90)]
    with business.consuming():
        rebuild(business)
    assert sums(assert_at_work(business, epoch=2)) == (50, 0, 0, 0)


def test_given_a_direct_event_of_a_grant_that_was_voided_since_then_the_grant_pays_live_and_in_a_rebuild(
    business: Business,
) -> None:
    """L2, L6: the work was done while the grant was good, and the ledger has not its end; then the rest is entered."""
    row = grant(business, 100, "k")
    admin.void(business.settings, row.grant_id)
    with business.consuming():
        publish(business, direct(20, "a"))
        until_rows(business.settings, 1)
        assert lapse_grants(business.runtime) == 0, "what is to be posted may be paid with what has ended"
        assert apply_postings(business.runtime) == 1
        live = assert_at_work(business)
        assert (sums(live), live.voided, live.beyond) == ((0, 0, 20, 0), 80, {})
        rebuild(business)
        rebuilt = assert_at_work(business, epoch=2)
        assert (sums(rebuilt), rebuilt.voided, rebuilt.beyond) == (sums(live), live.voided, live.beyond)
        next_turn(business, row)
        assert lapse_grants(business.runtime) == 1
        assert entries(business)[1:] == [("void", -80)]
        rebuild(business)
    assert sums(assert_at_work(business, epoch=3)) == (0, 0, 20, 0)


def test_given_an_event_that_comes_after_its_grants_end_was_entered_then_it_is_debt_live_and_in_a_rebuild(
    business: Business,
) -> None:
    """L7: no entry ever changes, whoever is told what first."""
    row = grant(business, 100, "k")
    late = settled(business, 20, "late")
    with business.consuming():
        business.lose()
        assert business.rebuilder.step() == 1
        admin.void(business.settings, row.grant_id)
        assert lapse_grants(business.runtime) == 1
        publish(business, late)
        until_rows(business.settings, 1)
        assert apply_postings(business.runtime) == 1
        live = assert_at_work(business, epoch=2)
        assert (sums(live), live.voided, live.beyond) == ((0, 0, 20, 20), 100, {row.grant_id: 20})
        rebuild(business)
    rebuilt = assert_at_work(business, epoch=3)
    assert (sums(rebuilt), rebuilt.voided, rebuilt.beyond) == (sums(live), live.voided, live.beyond)
    assert entries(business)[1:] == [("void", -100)]


def test_given_a_client_in_debt_when_credits_come_back_to_an_ended_grant_then_they_have_ended_with_it(
    business: Business,
) -> None:
    """L6: as in the bucket so in a rebuild, whether or not the ledger has entered what came back."""
    row = grant(business, 100, "k")
    events = [settled(business, 30, "a")]
    forget_run(business, "a")
    events.append(settled(business, 30, "a"))
    admin.void(business.settings, row.grant_id)
    assert lapse_grants(business.runtime) == 1
    with business.consuming():
        for event in (*events, settled(business, 25, "b")):
            publish(business, event)
        until_rows(business.settings, 2)
        assert apply_postings(business.runtime) == 1
        live = balance_of(business)
        assert (sums(live), live.voided) == ((0, 0, 55, 25), 70)
        rebuild(business)
        rebuilt = balance_of(business)
        assert (sums(rebuilt), rebuilt.voided) == (sums(live), live.voided)
        next_turn(business, row)
        assert lapse_grants(business.runtime) == 1
        assert entries(business)[1:] == [("void", -40), ("void", -30)]
        rebuild(business)
    again = assert_at_work(business, epoch=3)
    assert (sums(again), again.voided) == (sums(live), live.voided)


def test_given_a_grant_that_repaid_debt_before_it_ended_when_redis_is_lost_then_it_still_has(
    business: Business,
) -> None:
    """L6: and what an event that comes then says of it is debt, not what it had repaid."""
    grant(business, 10, "k")
    late = settled(business, 4, "late")
    with business.consuming():
        business.lose()
        assert business.rebuilder.step() == 1
        business.settle("acme", 60, "a")
        row = grant(business, 80, "l")
        admin.void(business.settings, row.grant_id)
        assert lapse_grants(business.runtime) == 1
        until_rows(business.settings, 1)
        publish(business, late)
        until_rows(business.settings, 2)
        assert apply_postings(business.runtime) == 1
        live = assert_at_work(business, epoch=2)
        rebuild(business)
    rebuilt = assert_at_work(business, epoch=3)
    assert [(one.spent, one.repaid, one.voided) for one in live.grants] == [(10, 0, 0), (0, 50, 30)]
    assert (rebuilt.grants, rebuilt.debt, rebuilt.beyond, sums(rebuilt)) == (
        live.grants,
        54,
        live.beyond,
        (0, 0, 64, 4),
    )


def test_given_a_posting_that_is_committed_and_applied_around_the_entry_of_an_end_then_no_entry_is_too_high(
    business: Business, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L2, L7: a batch waits for the entry, and then finds it; what was named before is never entered after it."""
    row = grant(business, 100, "k")
    admin.void(business.settings, row.grant_id)
    named, shards = business.runtime.buckets.lapse, []

    def lapse(shard: int, count: int) -> list[Lapsed]:
        found = named(shard, count)
        with business.runtime.engine.connect() as connection:
            free = sqlalchemy.select(sqlalchemy.func.pg_try_advisory_xact_lock_shared(Guard.SHARD, shard))
            shards.append((shard, connection.execute(free).scalar_one()))
        return found

    with monkeypatch.context() as patched:
        patched.setattr(business.runtime.buckets, "lapse", lapse)
        assert lapse_grants(business.runtime) == 1
    assert shards == [(SHARD, False)]


def test_given_a_batch_that_takes_its_time_when_grants_end_then_the_sweep_goes_on_without_its_shard(
    business: Business,
) -> None:
    """L10: its grants are entered by a later sweep."""
    row = grant(business, 100, "k")
    admin.void(business.settings, row.grant_id)
    with business.runtime.engine.begin() as batch:
        locks.lock_shards_shared(batch, [SHARD])
        assert lapse_grants(business.runtime) == 0
    assert lapse_grants(business.runtime) == 1


@pytest.mark.parametrize("silent", [False, True])
def test_given_shards_with_nothing_due_or_no_answer_when_all_are_looked_at_then_no_batch_waits_for_them(
    business: Business, monkeypatch: pytest.MonkeyPatch, *, silent: bool
) -> None:
    """L10: one server's silence has every shard looked at; the lock is taken where something is due, and answers."""
    row = grant(business, 100, "k")
    admin.void(business.settings, row.grant_id)
    due, locked = business.runtime.buckets.endings_due, []

    def endings_due(shards: Sequence[int] | None = None) -> list[int]:
        if shards is None or (silent and SHARD in shards):
            raise Unreachable("billing_redis_url: does not answer")
        return due(shards)

    def lock(connection: sqlalchemy.Connection, shard: int) -> None:
        locked.append(shard)
        take(connection, shard)

    take = locks.lock_shard_exclusive
    monkeypatch.setattr(business.runtime.buckets, "endings_due", endings_due)
    monkeypatch.setattr(business.runtime.buckets, "node_of", lambda shard: f"node of {shard}")
    monkeypatch.setattr(locks, "lock_shard_exclusive", lock)
    assert lapse_grants(business.runtime) == (0 if silent else 1)
    assert locked == ([] if silent else [SHARD])


def execute_lease_over(business: Business) -> None:
    """Let it be the turn of every grant that has ended."""
    with redis.Redis.from_url(business.settings.redis_url) as client:
        name = f"{{billing:{SHARD}}}:expiries"
        for member in client.zrange(name, 0, -1):
            client.zadd(name, {member: 1})
