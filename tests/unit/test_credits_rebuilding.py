"""Planning a bucket from ledger and log: pure, total, and conserving (L2, L6)."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from billing.credits.plan import LedgerTerms
from billing.credits.rebuilding import plan_bucket
from billing.credits.terms import ClientState, ClientTerms, GrantTerms

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
    assert (plan.debt, plan.owed, plan.beyond) == (8, 0, {1: 5, 7: 3})
    assert (plan.fields()["m:1"], plan.fields()["m:7"]) == (5, 3)
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


def test_a_hold_is_lent_by_the_grants_that_it_could_use_when_it_was_made_then_room() -> None:
    """Given a grant that ended after it, one before, one for another SKU, then the first lends, and room the rest."""
    known = LedgerTerms(
        now_ms=1_000,
        client=ClientTerms(state=ClientState.SUSPENDED, overdraft_limit=15),
        grants={1: GrantTerms(expires_ms=900), 2: GrantTerms(expires_ms=400), 3: GrantTerms(skus=("image",))},
        claims={RUNS[0]: ("page", 500)},
    )
    plan = plan_bucket(grants=[(2, 30), (1, 20), (3, 40)], spent={1: 5}, holds=[(RUNS[0], 40)], known=known)
    assert plan.holds == {RUNS[0]: {1: 15, 0: 15}}
    assert [(grant.grant_id, grant.available, grant.held, grant.expired) for grant in plan.grants] == [
        (2, 0, 0, 30),
        (1, 0, 15, 0),
        (3, 40, 0, 0),
    ]
    assert plan.bucket() == "0~15,15,s 1:0:15:5@100,900,0 3:40:0:0@100,0,0,image"
    assert plan.endings == {1: 900, 2: 400}
    assert plan.fields() == {"g:1": 20, "g:2": 30, "x:2": 30, "t:2": "@100,400,0", "g:3": 40}


def test_l1_a_hold_has_what_it_was_lent_so_that_another_one_still_fits() -> None:
    """Given a hold on the restricted grant and one that only the other grant fits, then neither takes the other's."""
    known = LedgerTerms(
        grants={2: GrantTerms(priority=200, skus=("page",))},
        claims={RUNS[0]: ("page", 500), RUNS[1]: ("image", 600)},
    )
    plan = plan_bucket(
        grants=[(1, 100), (2, 100)],
        spent={},
        holds=[(RUNS[0], 100), (RUNS[1], 100)],
        lent={RUNS[0]: {2: 100}, RUNS[1]: {1: 100}},
        known=known,
    )
    assert plan.holds == {RUNS[0]: {2: 100}, RUNS[1]: {1: 100}}
    assert sum(grant.available for grant in plan.grants) == 0


def test_l6_what_ended_beside_a_hold_does_not_come_back_through_it() -> None:
    """Given a hold on the second grant while the first one ended, then the first one's credits have expired."""
    known = LedgerTerms(now_ms=1_000, grants={1: GrantTerms(expires_ms=900)}, claims={RUNS[0]: ("page", 500)})
    plan = plan_bucket(
        grants=[(1, 100), (2, 100)], spent={}, holds=[(RUNS[0], 50)], lent={RUNS[0]: {2: 50}}, known=known
    )
    assert [(grant.available, grant.held, grant.expired) for grant in plan.grants] == [(0, 0, 100), (50, 50, 0)]


def test_what_a_hold_says_lends_no_more_than_there_is_and_the_rest_comes_from_elsewhere() -> None:
    """Also of a grant that the ledger does not know."""
    known = LedgerTerms(client=ClientTerms(overdraft_limit=20))
    plan = plan_bucket(
        grants=[(1, 100), (2, 30)],
        spent={2: 20},
        holds=[(RUNS[0], 140)],
        lent={RUNS[0]: {9: 40, 2: 30, 0: 20}},
        known=known,
    )
    assert plan.holds == {RUNS[0]: {2: 10, 1: 100, 0: 20}}


def test_l1_room_that_was_lent_stays_lent_though_the_limit_was_lowered_and_no_more_is_made() -> None:
    """Given 20 of a limit that is 5 now, and a hold that lost its shares, then the first has 20 and the other none."""
    known = LedgerTerms(client=ClientTerms(overdraft_limit=5))
    holds = [(RUNS[0], 120), (RUNS[1], 10)]
    plan = plan_bucket(grants=[(1, 100)], spent={}, holds=holds, lent={RUNS[0]: {1: 100, 0: 20}}, known=known)
    assert plan.holds == {RUNS[0]: {1: 100, 0: 20}, RUNS[1]: {}}
    assert plan.room == 20


def test_of_a_grant_whose_end_is_entered_what_is_left_had_repaid_debt() -> None:
    known = LedgerTerms(now_ms=1_000, grants={1: GrantTerms(expires_ms=900)}, final={1: (25, 0)})
    plan = plan_bucket(grants=[(1, 100), (2, 50)], spent={1: 60, 0: 40}, holds=[], known=known)
    assert [(grant.expired, grant.repaid, grant.available) for grant in plan.grants] == [(25, 15, 0), (0, 25, 25)]
    assert (plan.owed, plan.endings) == (0, {})


def test_debt_is_repaid_by_who_had_repaid_it_as_far_as_ledger_and_log_bear_that_out() -> None:
    """Given one that ended, one that repaid too much, a restricted and an unknown one, then no debt is paid twice."""
    known = LedgerTerms(
        now_ms=1_000,
        grants={1: GrantTerms(expires_ms=900), 4: GrantTerms(skus=("page",))},
        repaid={1: 30, 3: 70, 4: 5, 9: 5},
    )
    plan = plan_bucket(
        grants=[(1, 50), (2, 100), (3, 60), (4, 10)], spent={0: 95, 3: 10}, holds=[(RUNS[0], 20)], known=known
    )
    assert [(grant.repaid, grant.expired, grant.available) for grant in plan.grants] == [
        (30, 0, 0),
        (15, 0, 85),
        (50, 0, 0),
        (0, 0, 10),
    ]
    assert (plan.owed, plan.holds) == (0, {RUNS[0]: {1: 20}})


def test_the_ledgers_entries_come_before_what_the_log_says_beyond_them() -> None:
    """Given a grant of which 25 were entered as expired and 15 adjusted away, then it has paid 60 of the log's 70."""
    known = LedgerTerms(
        now_ms=1_000, grants={1: GrantTerms(expires_ms=900)}, final={1: (25, 0)}, adjustments={7: {1: 15}}
    )
    plan = plan_bucket(grants=[(1, 100), (2, 50)], spent={1: 70}, holds=[], known=known)
    assert [(grant.spent, grant.expired, grant.voided) for grant in plan.grants] == [(60, 25, 15), (0, 0, 0)]
    assert (plan.beyond, plan.debt, plan.owed, plan.adjusted) == ({1: 10}, 10, 0, {7: {1: 15}})


def test_what_an_ended_grant_got_back_since_its_entry_is_looked_at_again() -> None:
    """Given an entry of 25 and a log that accounts for 60 of the other 75, then the grant is to be ended once more."""
    known = LedgerTerms(now_ms=1_000, grants={1: GrantTerms(expires_ms=900)}, final={1: (25, 0)})
    plan = plan_bucket(grants=[(1, 100)], spent={1: 60}, holds=[], known=known)
    assert (plan.grants[0].expired, plan.endings) == (40, {1: 900})


def test_adjustments_take_what_they_took_and_those_that_wait_take_what_there_is() -> None:
    """As in a bucket, where debt has been repaid from what there was before another adjustment comes."""
    known = LedgerTerms(adjustments={7: {1: 10, 0: 5}}, waiting=[(8, 100)])
    plan = plan_bucket(grants=[(1, 30), (2, 40)], spent={1: 5}, holds=[], known=known)
    assert plan.adjusted == {7: {1: 10, 0: 5}, 8: {1: 10, 2: 40, 0: 50}}
    assert [(grant.voided, grant.repaid) for grant in plan.grants] == [(20, 5), (40, 0)]
    assert plan.owed == 50
    fields = plan.fields()
    assert (fields["j:1"], fields["j:2"], fields["j:0"], fields["a:8"]) == (20, 40, 55, "1:10 2:40 0:50")
    assert "v:1" not in fields


@given(
    granted=st.lists(st.integers(1, 1_000), max_size=6),
    spent=st.dictionaries(st.integers(0, 7), st.integers(0, 1_500), max_size=6),
    holds=st.lists(st.integers(0, 400), max_size=6),
    terms=st.lists(
        st.builds(
            GrantTerms,
            expires_ms=st.sampled_from((0, 400, 900, 5_000)),
            voided_ms=st.sampled_from((0, 0, 450)),
            skus=st.sampled_from(((), ("page",), ("image",))),
        ),
        max_size=6,
    ),
    final=st.dictionaries(st.integers(1, 6), st.tuples(st.integers(0, 500), st.integers(0, 500)), max_size=2),
    taken=st.dictionaries(st.integers(0, 6), st.integers(1, 300), max_size=3),
    waiting=st.integers(0, 2_000),
    limit=st.integers(0, 500),
    lent=st.lists(st.dictionaries(st.integers(0, 7), st.integers(1, 300), max_size=3), max_size=6),
)
def test_l2_whatever_the_terms_a_plan_conserves(
    *,
    granted: list[int],
    spent: dict[int, int],
    holds: list[int],
    terms: list[GrantTerms],
    final: dict[int, tuple[int, int]],
    taken: dict[int, int],
    waiting: int,
    limit: int,
    lent: list[dict[int, int]],
) -> None:
    grants = list(enumerate(granted, start=1))
    known = LedgerTerms(
        now_ms=1_000,
        client=ClientTerms(overdraft_limit=limit),
        grants=dict(enumerate(terms, start=1)),
        final={grant: ends for grant, ends in final.items() if grant <= len(granted)},
        adjustments={1: taken} if taken else {},
        waiting=[(2, waiting)] if waiting else [],
        claims=dict.fromkeys(RUNS, ("page", 500)),
    )
    own = dict(zip(RUNS, holds, strict=False))
    stored = dict(zip(RUNS, lent, strict=False))
    plan = plan_bucket(grants=grants, spent=spent, holds=list(own.items()), lent=stored, known=known)
    for grant in plan.grants:
        parts = (grant.available, grant.held, grant.spent, grant.repaid, grant.expired, grant.voided)
        assert min(parts) >= 0
        assert sum(parts) == grant.granted
    adjusted_debt = sum(shares.get(0, 0) for shares in plan.adjusted.values())
    repaid = sum(grant.repaid for grant in plan.grants)
    assert plan.owed == plan.debt + adjusted_debt - repaid >= 0
    assert plan.room <= max(limit, sum(shares.get(0, 0) for shares in stored.values()))
    assert sum(sum(shares.values()) for shares in plan.adjusted.values()) == sum(taken.values()) + waiting
    assert plan.debt + sum(grant.spent for grant in plan.grants) == sum(spent.values())
    of_log = {grant.grant_id: grant.spent + plan.beyond.get(grant.grant_id, 0) for grant in plan.grants}
    assert of_log == {grant: spent.get(grant, 0) for grant in of_log}
    assert all(spent[grant] == credits_ for grant, credits_ in plan.beyond.items() if grant not in of_log)
    assert plan.debt - sum(plan.beyond.values()) == spent.get(0, 0)
