"""Granting: by id, once, in burn order, within bounds (L2, L9)."""

from __future__ import annotations

import pytest

from billing.core.credits import CREDITS_MAX
from billing.core.errors import InvalidValue
from billing.core.limits import USABLE_GRANTS_MAX
from billing.core.shards import shard_of
from billing.credits.rebuilding import plan_bucket
from billing.credits.values import GrantBalance, GrantOutcome, OpenOutcome, RebuildOutcome, SettleOutcome
from billing.credits.verbs import Verbs
from tests.contract.laws import assert_laws
from tests.contract.making import a_client, a_hold, a_run, a_settlement


def test_l2_a_grant_is_added_once_by_its_id(buckets: Verbs) -> None:
    assert buckets.grant("acme", 1, 10) is GrantOutcome.UNKNOWN_CLIENT
    assert buckets.open_client("acme") is OpenOutcome.OPENED
    assert buckets.open_client("acme", 5) is OpenOutcome.ALREADY
    assert buckets.grant("acme", 1, 10) is GrantOutcome.GRANTED
    assert buckets.grant("acme", 1, 10) is GrantOutcome.ALREADY
    assert buckets.grant("acme", 1, 11) is GrantOutcome.CONFLICT
    balance = buckets.balance("acme")
    assert balance is not None
    assert (balance.epoch, balance.grants) == (1, (GrantBalance(grant_id=1, granted=10, available=10),))


def test_burn_order_is_the_order_of_creation_also_for_a_grant_that_arrives_late(buckets: Verbs) -> None:
    buckets.open_client("acme")
    for grant_id in (12, 9, 100, 11):
        buckets.grant("acme", grant_id, 10)
    balance = buckets.balance("acme")
    assert balance is not None
    assert balance.order == (9, 11, 12, 100)
    buckets.reserve(a_hold(a_run(), 25))
    assert dict(buckets.held("acme")[0].grants) == {9: 10, 11: 10, 12: 5}


def test_l2_a_grant_that_is_used_up_leaves_the_burn_order_and_stays_in_the_sums(buckets: Verbs) -> None:
    a_client(buckets, 10, 10)
    run = a_run()
    buckets.reserve(a_hold(run, 12))
    buckets.grant("acme", 3, 10)
    balance = buckets.balance("acme")
    assert balance is not None
    assert balance.order == (1, 2, 3), "credits may still come back to a grant that is held"
    assert buckets.settle(a_settlement(run, 12)).outcome is SettleOutcome.SETTLED
    buckets.grant("acme", 4, 10)
    balance = buckets.balance("acme")
    assert balance is not None
    assert balance.order == (2, 3, 4)
    assert balance.grants[0] == GrantBalance(grant_id=1, granted=10, spent=10)
    assert buckets.grant("acme", 1, 10) is GrantOutcome.ALREADY
    assert_laws(balance)


def test_l9_more_than_64_usable_grants_are_refused_and_used_ones_do_not_count(buckets: Verbs) -> None:
    a_client(buckets, *[1] * USABLE_GRANTS_MAX)
    assert buckets.grant("acme", 65, 1) is GrantOutcome.TOO_MANY
    buckets.settle(a_settlement(a_run(), 1))
    assert buckets.grant("acme", 65, 1) is GrantOutcome.GRANTED
    assert buckets.grant("acme", 66, 1) is GrantOutcome.TOO_MANY
    assert buckets.reserve(a_hold(a_run(task_id="all"), 64)).held == 64
    balance = buckets.balance("acme")
    assert balance is not None
    assert_laws(balance)


def test_a_grant_that_would_lift_a_sum_above_the_bound_is_refused(buckets: Verbs) -> None:
    a_client(buckets, CREDITS_MAX - 10)
    assert buckets.grant("acme", 2, 11) is GrantOutcome.TOO_LARGE
    assert buckets.grant("acme", 2, 10) is GrantOutcome.GRANTED
    balance = buckets.balance("acme")
    assert balance is not None
    assert balance.available == CREDITS_MAX


@pytest.mark.parametrize("credits_", [0, -1, CREDITS_MAX + 1, 1.0, True])
def test_a_grant_out_of_bounds_is_refused(buckets: Verbs, credits_: int) -> None:
    buckets.open_client("acme")
    with pytest.raises(InvalidValue, match="credits"):
        buckets.grant("acme", 1, credits_)


def test_thousands_of_grants_later_the_balance_is_still_read_whole(buckets: Verbs) -> None:
    grants = [(grant_id, 5) for grant_id in range(1, 3_001)]
    plan = plan_bucket(grants=grants, spent=dict(grants), holds=[])
    shard = shard_of("acme", buckets.shards)
    _, current = buckets.server_of(shard)
    assert buckets.rebuild("acme", 1, plan, server=current, asserts=0) is RebuildOutcome.REBUILT
    assert buckets.grant("acme", 3_001, 5) is GrantOutcome.GRANTED
    balance = buckets.balance("acme")
    assert balance is not None
    assert (balance.granted, balance.spent, len(balance.grants)) == (15_005, 15_000, 3_001)
    assert_laws(balance)
