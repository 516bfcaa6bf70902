"""Grants that end while something is given back to them, or while an adjustment is half applied (L2, L6, L7)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import redis
from sqlalchemy import Connection

from billing import admin
from billing.credits.granting import Lapsed
from billing.credits.posting import Posting, PostOutcome
from billing.ledger import endings
from billing.ledger.changes import take_credits
from billing.recovery import lapsing
from billing.recovery.changes import apply_changes
from billing.recovery.lapsing import lapse_grants
from billing.recovery.postings import apply_postings
from tests.integration.consuming import until_rows
from tests.integration.granting import entries, grant, rebuild
from tests.integration.posting import SHARD, assert_at_work, forget_run, publish, settled, sums
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


def execute_lease_over(business: Business) -> None:
    """Let it be the turn of every grant that has ended."""
    with redis.Redis.from_url(business.settings.redis_url) as client:
        name = f"{{billing:{SHARD}}}:expiries"
        for member in client.zrange(name, 0, -1):
            client.zadd(name, {member: 1})
