"""Planning a bucket from ledger and log: pure, total, and conserving (L2, L6)."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from billing.credits.rebuilding import plan_bucket

RUNS = [UUID(int=number) for number in range(1, 20)]


def test_holds_come_before_debt_and_debt_before_what_is_available() -> None:
    plan = plan_bucket(grants=[(1, 100), (2, 50)], spent={1: 30, 0: 60}, holds=[(RUNS[0], 50), (RUNS[1], 30)])
    assert plan.holds == {RUNS[0]: {1: 50}, RUNS[1]: {1: 20, 2: 10}}
    assert [(grant.available, grant.held, grant.spent, grant.repaid) for grant in plan.grants] == [
        (0, 70, 30, 0),
        (0, 10, 0, 40),
    ]
    assert (plan.debt, plan.owed, plan.order) == (60, 20, (1, 2))


def test_a_hold_that_nothing_covers_any_more_is_kept_with_what_there_is() -> None:
    plan = plan_bucket(grants=[(1, 10)], spent={}, holds=[(RUNS[0], 8), (RUNS[1], 8)])
    assert plan.holds == {RUNS[0]: {1: 8}, RUNS[1]: {1: 2}}


def test_what_the_log_says_beyond_a_grant_or_of_an_unknown_grant_is_debt() -> None:
    plan = plan_bucket(grants=[(1, 10), (2, 100)], spent={1: 15, 7: 3}, holds=[])
    assert (plan.debt, plan.owed) == (8, 0)
    assert [(grant.available, grant.spent, grant.repaid) for grant in plan.grants] == [(0, 10, 0), (92, 0, 8)]


def test_the_bucket_leaves_used_up_grants_out_of_the_burn_order() -> None:
    plan = plan_bucket(grants=[(1, 10), (2, 100)], spent={1: 10}, holds=[(RUNS[0], 5)])
    assert plan.bucket() == "0 2:95:5:0"
    assert plan.fields() == {"g:1": 10, "s:1": 10, "g:2": 100}


@given(
    granted=st.lists(st.integers(1, 1_000), max_size=8),
    spent=st.dictionaries(st.integers(0, 9), st.integers(0, 1_500), max_size=8),
    holds=st.lists(st.integers(0, 400), max_size=8),
)
def test_l2_whatever_the_facts_a_plan_conserves(granted: list[int], spent: dict[int, int], holds: list[int]) -> None:
    grants = list(enumerate(granted, start=1))
    plan = plan_bucket(grants=grants, spent=spent, holds=list(zip(RUNS, holds, strict=False)))
    for grant in plan.grants:
        parts = (grant.available, grant.held, grant.spent, grant.repaid)
        assert min(parts) >= 0
        assert sum(parts) == grant.granted
    assert sum(grant.spent for grant in plan.grants) + plan.debt == sum(spent.values())
    assert plan.owed == plan.debt - sum(grant.repaid for grant in plan.grants)
    assert plan.owed == 0 or all(grant.available == 0 for grant in plan.grants)
    assert sum(sum(shares.values()) for shares in plan.holds.values()) == sum(grant.held for grant in plan.grants)
