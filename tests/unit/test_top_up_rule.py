"""What is short, and how long a rule rests: by the balance alone, within its bounds."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.credits.terms import GrantTerms
from billing.credits.values import Balance, GrantBalance
from billing.top_ups.request import pause_after
from billing.top_ups.rule import LOW, REFUSED, Rule, Short, back_off, shortfall

#: No outcome depends on how fast the machine is.
AT_ANY_SPEED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def a_rule(**changes: int | None) -> Rule:
    given: dict[str, int | None] = {"credits": 500, "below_percent": 20, "cool_off_seconds": 60}
    return Rule(client_id="acme", **(given | {"back_off_seconds": 60, "back_off_max_seconds": 3_600} | changes))  # type: ignore[arg-type]


def a_balance(*grants: GrantBalance, **terms: GrantTerms) -> Balance:
    """Return a balance of these grants; all of them are in the bucket's string but those that are used up."""
    return Balance(
        client_id="acme",
        epoch=1,
        grants=grants,
        order=tuple(grant.grant_id for grant in grants if grant.available or grant.held),
        debt=0,
        owed=0,
        available=sum(grant.available for grant in grants),
        held=sum(grant.held for grant in grants),
        spent=sum(grant.spent for grant in grants),
        granted=sum(grant.granted for grant in grants),
        grant_terms={int(name[1:]): of for name, of in terms.items()},
    )


def a_grant(available: int, *, spent: int = 0, held: int = 0, number: int = 1) -> GrantBalance:
    return GrantBalance(grant_id=number, granted=available + spent + held, available=available, spent=spent, held=held)


@pytest.mark.parametrize(
    ("available", "spent", "held", "short"),
    [(20, 80, 0, False), (19, 80, 1, True), (19, 81, 0, True), (1, 3, 0, False), (0, 100, 0, True), (0, 0, 100, True)],
)
def test_a_percentage_is_of_what_usable_grants_brought(available: int, spent: int, held: int, short: bool) -> None:  # noqa: FBT001
    """Given 20 %, then below it is short, at it is not; what holds have is not at hand."""
    balance = a_balance(a_grant(available, spent=spent, held=held))
    assert (shortfall(a_rule(), balance, coming=0, refused=False) is not None) is short


def test_grants_that_have_ended_or_are_used_up_raise_no_mark() -> None:
    """Given large grants that are used up, voided or expired, then the mark is a share of the small one alone."""
    used, voided = a_grant(0, spent=10_000, number=1), a_grant(0, spent=9_000, held=10, number=2)
    expired = GrantBalance(grant_id=4, granted=9_100, available=0, spent=9_000, held=10, expired=90)
    balance = a_balance(used, voided, a_grant(60, spent=40, number=3), expired, g2=GrantTerms(voided_ms=1))
    assert shortfall(a_rule(), balance, coming=0, refused=False) is None
    assert shortfall(a_rule(below_percent=61), balance, coming=0, refused=False) == Short(why=LOW, available=60)


def test_a_client_that_never_had_anything_is_short() -> None:
    assert shortfall(a_rule(), a_balance(), coming=0, refused=False) == Short(why=LOW, available=0)


@AT_ANY_SPEED
@given(available=st.integers(0, 1_000), mark=st.integers(1, 1_000), coming=st.integers(0, 1_000))
def test_below_credits_is_what_is_at_hand_or_on_its_way(available: int, mark: int, coming: int) -> None:
    rule = a_rule(below_percent=None, below_credits=mark)
    found = shortfall(rule, a_balance(a_grant(available)), coming=coming, refused=False)
    assert (found is not None) == (available + coming < mark)


def test_a_refusal_counts_though_something_is_left_unless_more_is_coming() -> None:
    balance = a_balance(a_grant(100))
    assert shortfall(a_rule(), balance, coming=0, refused=True) == Short(why=REFUSED, available=100)
    assert shortfall(a_rule(), balance, coming=1, refused=True) is None
    assert shortfall(a_rule(), a_balance(a_grant(1, spent=99)), coming=0, refused=True) == Short(why=LOW, available=1)


@AT_ANY_SPEED
@given(first=st.integers(60, 10_000), factor=st.integers(1, 1_000), declines=st.integers(1, 10_000))
def test_l9_the_rest_after_declines_doubles_up_to_its_bound(first: int, factor: int, declines: int) -> None:
    rule = a_rule(back_off_seconds=first, back_off_max_seconds=first * factor)
    pauses = [back_off(rule, number).total_seconds() for number in (declines, declines + 1)]
    assert first <= pauses[0] <= pauses[1] <= first * factor
    assert pauses[1] in (2 * pauses[0], first * factor)
    assert back_off(rule, 1).total_seconds() == first


def test_l9_the_pause_after_doubt_grows_to_six_hours() -> None:
    pauses = [pause_after(attempts).total_seconds() for attempts in (1, 2, 3, 10, 10_000)]
    assert pauses == [60, 120, 240, 21_600, 21_600]
