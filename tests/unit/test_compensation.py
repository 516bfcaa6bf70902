"""What corrections return: to those who paid, debt first, never more than a line was charged (L2, L7)."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.core.errors import InvalidValue
from billing.fulfillment.compensation import Correction, check_bound, returned, shares_of

RUN = uuid.UUID(int=7)


def before(*credits_: int, grant: int = 1) -> list[Correction]:
    """Return corrections of one grant."""
    return [Correction(run_id=RUN, credits=one, grants={grant: one}) for one in credits_]


@given(paid=st.dictionaries(st.integers(0, 5), st.integers(1, 50), min_size=1), data=st.data())
def test_whatever_is_returned_step_by_step_no_grant_gets_more_than_it_paid_and_the_first_payer_gets_it_last(
    paid: dict[int, int], data: st.DataObject
) -> None:
    left = dict(paid)
    made: list[Correction] = []
    while total := sum(left.values()):
        credits_ = -data.draw(st.integers(1, total))
        shares = returned(paid, made, credits_)
        assert sum(shares.values()) == credits_
        order = [0, *reversed([grant for grant in paid if grant])]
        assert list(shares) == sorted(shares, key=order.index)
        for grant, share in shares.items():
            left[grant] += share
            assert left[grant] >= 0
        last = list(shares)[-1]
        assert all(left.get(grant, 0) == 0 for grant in order[: order.index(last)]), "those before it have all of it"
        made.append(Correction(run_id=RUN, credits=credits_, grants=shares))
    with pytest.raises(AssertionError, match="paid by no grant"):
        returned(paid, made, -1)


def test_who_paid_a_charge_of_more_gets_back_before_who_paid_at_first() -> None:
    more = Correction(run_id=RUN, credits=12, grants={3: 5, 0: 7})
    assert returned({2: 10}, [more], -20) == {0: -7, 3: -5, 2: -8}


def test_shares_of_one_grant_are_one() -> None:
    assert shares_of([{"grant": 2, "credits": 3}, {"grant": 0, "credits": 1}, {"grant": 2, "credits": 4}]) == {
        2: 7,
        0: 1,
    }


@pytest.mark.parametrize(
    ("credits", "made", "again"),
    [(-40, [], False), (40, [], False), (-50, [10], False), (-15, [-25], True), (15, [25], True), (65, [-25], False)],
)
def test_a_line_is_corrected_within_what_it_was_charged_either_way(credits: int, made: list[int], again: bool) -> None:  # noqa: FBT001
    check_bound("line", 40, before(*made), credits, again=again)


@pytest.mark.parametrize(
    ("credits", "made", "again", "rule"),
    [
        (-41, [], False, "must be at least -40: line was charged 40 credits"),
        (41, [], True, "must be at most 40: line was charged 40 credits"),
        (-51, [10], True, "must be at least -50: line was charged 40 credits and corrected by +10 so far"),
        (-1, [-40], True, "must be at least 0: line was charged 40 credits and corrected by -40 so far"),
        (-5, [-10], False, f"line was corrected by -10 before, as {RUN}; to do so once more it takes --again"),
        (5, [10, -10], False, f"line was corrected by +10 before, as {RUN}; to do so once more it takes --again"),
    ],
)
def test_what_exceeds_it_or_comes_a_second_time_is_refused(
    credits: int,
    made: list[int],
    again: bool,  # noqa: FBT001
    rule: str,
) -> None:
    with pytest.raises(InvalidValue) as caught:
        check_bound("line", 40, before(*made), credits, again=again)
    assert caught.value.rule.startswith(rule)


def test_what_was_charged_nothing_has_nothing_to_correct() -> None:
    with pytest.raises(InvalidValue, match="credits: 5: line was charged 0 credits; there is nothing to correct"):
        check_bound("line", 0, [], 5, again=False)
