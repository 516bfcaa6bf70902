"""A PostgreSQL that lost its last transactions: what a bucket was told is found, and its shard is rebuilt (L2, L6).

The loss is a posting that the bucket has and PostgreSQL never had: so it looks after a restore, or a crash of a server
that commits asynchronously.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import pytest

from billing.core.settings import Settings
from billing.credits.posting import Posting, PostOutcome
from billing.ledger import postings, rebuilds
from billing.reconciliation.continuous.chase import RECONCILER
from billing.reconciliation.continuous.reconciler import Reconciler
from billing.reconciliation.reconcile import reconcile
from billing.reconciliation.repair.repair import plan_repair, repair
from billing.recovery.postings import apply_postings
from tests.integration.consuming import query, until_rows
from tests.integration.granting import balance_of, grant
from tests.integration.posting import SHARD, assert_at_work, direct, publish, sums
from tests.integration.recovering import Business, business_on
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def business(database: Settings, redis_url: str, broker_url: str) -> Iterator[Business]:
    """Open a business with a client, compared as fast as steps are taken."""
    changed = dataclasses.replace(
        database, reconcile_pass_seconds=0.001, reconcile_load_percent=100, reconcile_wait_seconds=0.25
    )
    with business_on(changed, redis_url, broker_url) as business:
        business.client("acme")
        yield business


def lose_posting(business: Business, grant_id: int, credits_: int) -> None:
    """Have the bucket know a posting that PostgreSQL does not."""
    row = Posting(grant_id=grant_id, version=1, credits=credits_)
    assert business.runtime.buckets.post("acme", 1, [row]) is PostOutcome.POSTED


def requested(business: Business) -> dict[int, str]:
    """Return the shards that wait for a rebuild."""
    with business.runtime.engine.connect() as connection:
        return rebuilds.requested(connection)


def test_given_a_lost_posting_when_compared_over_and_over_then_it_is_named_and_the_shard_is_rebuilt_once(
    business: Business,
) -> None:
    """L2, L7: nobody has to ask; the repair is recorded, and afterwards the bucket is what ledger and log say."""
    lose_posting(business, grant(business, 100, "k").grant_id, 30)
    # That no event is on its way is proven only for what is pursued long enough.
    business.runtime.settings = dataclasses.replace(business.settings, reconcile_wait_seconds=60.0)
    with business.consuming(), contextlib.closing(Reconciler(business.runtime)) as reconciler:
        wait_until(lambda: reconciler.step() >= 0 and SHARD in requested(business), "it asks for a rebuild")
        assert business.rebuilder.step() == 1
        standing = "SELECT count(*) FROM discrepancy AS one WHERE closes IS NULL AND NOT EXISTS (SELECT FROM"
        standing += " discrepancy WHERE closes = one.discrepancy_id)"
        wait_until(lambda: reconciler.step() >= 0 and query(business.settings, standing) == [(0,)], "it is gone")
    business.runtime.settings = business.settings
    assert sums(assert_at_work(business, epoch=2)) == (100, 0, 0, 0)
    [(found,)] = query(business.settings, "SELECT found FROM discrepancy WHERE closes IS NULL")
    assert "it has lost transactions" in found
    assert query(business.settings, "SELECT client_id, action, made_by FROM repair") == [
        ("acme", "rebuild", RECONCILER)
    ]


def test_given_a_lost_posting_when_a_person_repairs_then_a_rebuild_is_asked_for_and_the_books_agree(
    business: Business,
) -> None:
    """No posting can put it right: its version would be one that the bucket takes for seen."""
    lose_posting(business, grant(business, 100, "k").grant_id, 30)
    assert not reconcile(business.runtime, stripe=False).ok
    with business.consuming():
        done = repair(business.runtime, plan_repair(business.runtime, stripe=False), made_by="tester")
        assert ([made.client_id for made in done.rebuilds], done.posted) == (["acme"], ())
        assert business.rebuilder.step() == 1
    assert sums(assert_at_work(business, epoch=2)) == (100, 0, 0, 0)


def test_given_a_version_that_is_used_again_when_it_is_told_then_the_shard_is_rebuilt_at_once(
    business: Business,
) -> None:
    """L6: the charge of an event after the loss is in the bucket, and the one before it is not."""
    row = grant(business, 100, "k")
    lose_posting(business, row.grant_id, 30)
    with business.consuming():
        publish(business, direct(20, "a"))
        until_rows(business.settings, 1)
        assert apply_postings(business.runtime) == 0
        assert "reused" in requested(business)[SHARD]
        with business.runtime.engine.connect() as connection:
            assert len(postings.waiting(connection, 10)) == 1
        assert sums(balance_of(business)) == (70, 0, 30, 0)
        assert business.rebuilder.step() == 1
    assert sums(assert_at_work(business, epoch=2)) == (80, 0, 20, 0)
