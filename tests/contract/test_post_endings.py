"""Postings to grants that have ended: what the ledger has not pays, and what comes back has ended too (L2, L7)."""

from __future__ import annotations

import pytest

from billing.credits.posting import PostOutcome
from billing.credits.terms import GrantTerms
from billing.credits.verbs import Verbs
from tests.contract.making import a_client, a_run, a_settlement
from tests.contract.passing import end_grant_anywhere
from tests.contract.servers import FUTURE_MS, Server
from tests.contract.test_post import SHARD, grant_of, post
from tests.contract.test_terms import balance_of


def test_an_ended_grant_still_pays_what_it_had_spent_until_the_ledger_has_its_end(
    buckets: Verbs, server: Server
) -> None:
    """Given a grant whose time is over, then a posting takes from it, also what has lapsed; what is entered is debt."""
    buckets.open_client("acme")
    buckets.grant("acme", 1, 100, GrantTerms(expires_ms=FUTURE_MS))
    end_grant_anywhere(server.client(), "acme", 1)
    assert post(buckets, (1, 1, 30)) is PostOutcome.POSTED
    grant = grant_of(buckets, 1)
    assert (grant.spent, grant.expired, balance_of(buckets).beyond) == (30, 70, {})
    [lapsed] = buckets.lapse(SHARD, 10)
    assert lapsed.expired == 70
    assert post(buckets, (1, 2, 35)) is PostOutcome.POSTED
    assert (grant_of(buckets, 1).spent, grant_of(buckets, 1).expired, balance_of(buckets).owed) == (35, 65, 0)
    buckets.forget_lapsed([lapsed])
    [again] = buckets.lapse(SHARD, 10)
    assert again.expired == 65, "the amount that was named is not final any more"
    buckets.forget_lapsed([again])
    assert post(buckets, (1, 3, 45), entered=60) is PostOutcome.POSTED
    assert (grant_of(buckets, 1).spent, grant_of(buckets, 1).expired) == (40, 60)
    assert (balance_of(buckets).beyond, balance_of(buckets).owed) == ({1: 5}, 5)


@pytest.mark.parametrize("left", [False, True], ids=["in the string", "used up"])
def test_a_voided_grant_pays_with_what_was_voided_and_is_looked_at_again(buckets: Verbs, *, left: bool) -> None:
    a_client(buckets, 50)
    buckets.settle(a_settlement(a_run(), 30))
    buckets.void("acme", 1)
    if left:
        buckets.grant("acme", 2, 5)
    buckets.forget_lapsed(buckets.lapse(SHARD, 10))
    assert post(buckets, (1, 1, 24)) is PostOutcome.POSTED
    assert (grant_of(buckets, 1).spent, grant_of(buckets, 1).voided) == (50, 0)
    assert (balance_of(buckets).beyond, balance_of(buckets).owed, balance_of(buckets).debt) == (
        {1: 4},
        4 * (not left),
        4,
    )
    assert [(one.grant_id, one.voided) for one in buckets.lapse(SHARD, 10)] == [(1, 0)]


@pytest.mark.parametrize("left", [False, True], ids=["in the string", "used up"])
def test_what_comes_back_to_an_ended_grant_has_ended_with_it_and_is_looked_at_again(
    buckets: Verbs, server: Server, *, left: bool
) -> None:
    buckets.open_client("acme")
    buckets.grant("acme", 1, 30, GrantTerms(expires_ms=FUTURE_MS))
    buckets.settle(a_settlement(a_run(), 30 if left else 20))
    buckets.grant("acme", 2, 50)
    buckets.void("acme", 2)
    end_grant_anywhere(server.client(), "acme", 1)
    buckets.forget_lapsed(buckets.lapse(SHARD, 10))
    assert post(buckets, (1, 1, -20)) is PostOutcome.POSTED
    grant = grant_of(buckets, 1)
    assert (grant.spent, grant.available, grant.expired) == (10 if left else 0, 0, 20 if left else 30)
    assert [(one.grant_id, one.expired) for one in buckets.lapse(SHARD, 10)] == [(1, 20 if left else 30)]


def test_what_comes_back_to_a_used_up_grant_that_was_voided_meanwhile_is_voided(buckets: Verbs) -> None:
    a_client(buckets, 30)
    buckets.settle(a_settlement(a_run(), 30))
    buckets.grant("acme", 2, 50)
    buckets.void("acme", 1)
    assert post(buckets, (1, 1, -20)) is PostOutcome.POSTED
    assert (grant_of(buckets, 1).voided, grant_of(buckets, 1).available) == (20, 0)
