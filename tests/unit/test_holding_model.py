"""The hold of a run that a direct event has charged is given back when its bucket knows; earlier breaks a law.

The model is searched whole: a law that fails is told with the shortest way to it.
"""

from __future__ import annotations

import pytest

from tests.unit.holding_model import Rules, search
from tests.unit.searching import Violation

#: The search stops with an error past so many states: it is to stay small enough to be whole.
STATES_MAX = 100_000


def test_l1_l6_no_credits_of_work_that_is_done_are_offered_and_the_bucket_comes_to_what_the_log_says() -> None:
    assert search(Rules(), states_max=STATES_MAX) > 5_000


MUTANTS = {
    "a hold is given back when the event is published": Rules(released_when="published"),
    "a hold is given back when the row is written": Rules(released_when="log"),
    "a rebuild does not wait for asserts": Rules(rebuild_waits_for_asserts=False),
    "a posting has no epoch": Rules(posting_is_of_the_epoch=False),
}


@pytest.mark.parametrize("rules", MUTANTS.values(), ids=MUTANTS)
def test_a_simpler_rule_breaks_a_law(rules: Rules) -> None:
    with pytest.raises(Violation):
        search(rules, states_max=STATES_MAX)
