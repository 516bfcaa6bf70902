"""Lending to holds anew: no hold is uncovered where some lending covers all (L1, L6). Pure."""

from __future__ import annotations

import itertools
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from billing.credits.lending import Claim, lend
from billing.credits.plan import LedgerTerms
from billing.credits.rebuilding import plan_bucket
from billing.credits.terms import ClientTerms, GrantTerms

RUNS = [UUID(int=number) for number in range(1, 10)]
PAGE, IMAGE = GrantTerms(skus=("page",)), GrantTerms(skus=("image",))


def most(free: dict[int, int], claims: list[Claim]) -> int:
    """Return how much of all claims any lending can cover: the least that any set of claims leaves (Hall, Koenig)."""
    return min(
        sum(claim.need for claim in claims if claim not in chosen)
        + sum(free[grant] for grant in {grant for claim in chosen for grant in claim.usable})
        for size in range(len(claims) + 1)
        for chosen in itertools.combinations(claims, size)
    )


@given(
    free=st.lists(st.integers(0, 60), min_size=1, max_size=5),
    asked=st.lists(st.tuples(st.integers(0, 60), st.sets(st.integers(1, 5))), max_size=6),
    stored=st.lists(st.integers(0, 60), max_size=6),
)
def test_l1_as_much_is_lent_as_any_lending_covers_and_to_each_hold_only_what_it_may_use(
    free: list[int], asked: list[tuple[int, set[int]]], stored: list[int]
) -> None:
    """Given what some holds were lent already, then that stays theirs or is exchanged, and every credit is there."""
    grants = dict(enumerate(free, start=1))
    claims = [
        Claim(run_id=run, need=need, usable=tuple(sorted(usable & grants.keys())))
        for run, (need, usable) in zip(RUNS, asked, strict=False)
    ]
    available, held = dict(grants), dict.fromkeys(grants, 0)
    loans: dict[UUID, dict[int, int]] = {claim.run_id: {} for claim in claims}
    for claim, credits_ in zip(claims, stored, strict=False):
        for grant in claim.usable[-1:]:
            part = min(credits_, claim.need, available[grant])
            loans[claim.run_id] = {grant: part} if part else {}
            available[grant] -= part
            held[grant] += part

    lend(available, held, claims, loans)

    assert sum(map(sum, (shares.values() for shares in loans.values()))) == most(grants, claims)
    for claim in claims:
        assert set(loans[claim.run_id]) <= set(claim.usable)
        assert all(part > 0 for part in loans[claim.run_id].values())
        assert sum(loans[claim.run_id].values()) <= claim.need
    for grant, granted in grants.items():
        assert held[grant] == sum(shares.get(grant, 0) for shares in loans.values())
        assert (available[grant] + held[grant], min(available[grant], held[grant]) >= 0) == (granted, True)


def test_l6_where_nobody_goes_short_each_is_lent_in_its_turn_and_in_burn_order() -> None:
    available, held = {1: 50, 2: 100}, {1: 0, 2: 0}
    claims = [Claim(run_id=RUNS[0], need=30, usable=(1, 2)), Claim(run_id=RUNS[1], need=60, usable=(1, 2))]
    loans: dict[UUID, dict[int, int]] = {RUNS[0]: {}, RUNS[1]: {}}
    lend(available, held, claims, loans)
    assert (loans, available, held) == ({RUNS[0]: {1: 30}, RUNS[1]: {1: 20, 2: 40}}, {1: 0, 2: 60}, {1: 50, 2: 40})


def test_a_hold_that_one_grant_alone_fits_has_it_though_an_older_one_burns_it_first() -> None:
    """Given holds that were asserted anew, when the older one fits every grant, then it leaves the page grant alone."""
    known = LedgerTerms(grants={2: PAGE}, claims={RUNS[0]: ("page", 500), RUNS[1]: ("image", 600)})
    holds = [(RUNS[0], 100), (RUNS[1], 100)]
    plan = plan_bucket(grants=[(1, 100), (2, 100)], spent={}, holds=holds, known=known)
    assert plan.holds == {RUNS[0]: {2: 100}, RUNS[1]: {1: 100}}


def test_what_a_hold_was_lent_is_exchanged_for_a_grant_that_came_since_where_another_hold_goes_short() -> None:
    known = LedgerTerms(grants={2: PAGE, 3: IMAGE}, claims={RUNS[0]: ("page", 500), RUNS[1]: ("image", 600)})
    plan = plan_bucket(
        grants=[(1, 100), (2, 70), (3, 20)],
        spent={},
        holds=[(RUNS[0], 100), (RUNS[1], 60)],
        lent={RUNS[0]: {1: 100}},
        known=known,
    )
    assert plan.holds == {RUNS[0]: {1: 60, 2: 40}, RUNS[1]: {3: 20, 1: 40}}


def test_overdraft_room_is_lent_last_and_given_up_by_who_has_no_need_of_it() -> None:
    known = LedgerTerms(
        client=ClientTerms(overdraft_limit=30),
        grants={1: PAGE},
        claims={RUNS[0]: ("page", 500), RUNS[1]: ("image", 600)},
    )
    holds = [(RUNS[0], 30), (RUNS[1], 30)]
    plan = plan_bucket(grants=[(1, 100)], spent={}, holds=holds, lent={RUNS[0]: {0: 30}}, known=known)
    assert (plan.holds, plan.room) == ({RUNS[0]: {1: 30}, RUNS[1]: {0: 30}}, 30)


def test_three_thousand_holds_that_go_short_are_exchanged_by_kind() -> None:
    """L9: the work grows with the kinds of holds and not with their number squared."""
    skus = tuple(f"sku-{number}" for number in range(40))
    terms = {number: GrantTerms(skus=skus[number % 40 :][:20]) for number in range(1, 61)}
    runs = [UUID(int=number) for number in range(3_000)]
    known = LedgerTerms(grants=terms, claims={run: (skus[run.int % 40], run.int) for run in runs})
    grants = [(number, 1_500) for number in range(1, 65)]
    plan = plan_bucket(grants=grants, spent={}, holds=[(run, 40) for run in runs], known=known)
    assert sum(grant.available for grant in plan.grants) == 0
