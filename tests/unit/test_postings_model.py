"""Two settlements, a direct event, losses, rebuilders, postings, in every order, keep L3 and L6. Simpler rules do not.

The model is searched whole: a law that fails is told with the shortest way to it.
"""

from __future__ import annotations

import pytest

from billing.fulfillment.verdicts import Settled, Verdict, judge
from tests.unit.postings_model import Rules, search
from tests.unit.searching import Violation

#: The search stops with an error past so many states: it is to stay small enough to be whole.
STATES_MAX = 150_000


def test_l3_l6_whatever_comes_in_whichever_order_an_open_bucket_comes_to_what_the_log_says() -> None:
    assert search(Rules(), states_max=STATES_MAX) > 50_000


def always_taken(settled: Settled, epoch: int, stored: Settled | None) -> Verdict:
    """Deduct whatever is new."""
    return Verdict.TAKE if stored is None else judge(settled, epoch, stored)


def never_taken(settled: Settled, epoch: int, stored: Settled | None) -> Verdict:
    """Let a bucket have paid whatever is new."""
    return Verdict.NOTHING if stored is None else judge(settled, epoch, stored)


def never_given_back(settled: Settled, epoch: int, stored: Settled | None) -> Verdict:
    """Let a second settlement be."""
    return judge(settled, epoch, stored) if stored is None else Verdict.NOTHING


def always_given_back(settled: Settled, epoch: int, stored: Settled | None) -> Verdict:
    """Give back whatever another settlement took, of whichever epoch."""
    return Verdict.GIVE_BACK if stored is not None and stored != settled else judge(settled, epoch, stored)


def known_by_its_id_alone(settled: Settled, epoch: int, stored: Settled | None) -> Verdict:
    """Take the same settlement id, of a bucket of another epoch, for the same settlement."""
    if stored is not None and stored.settlement_id == settled.settlement_id:
        return Verdict.NOTHING
    return judge(settled, epoch, stored)


MUTANTS = {
    "whatever is new is deducted": Rules(judge=always_taken),
    "a bucket has paid whatever is new": Rules(judge=never_taken),
    "a second settlement is left alone": Rules(judge=never_given_back),
    "a settlement of an older epoch is given back too": Rules(judge=always_given_back),
    "a settlement is known by its id alone": Rules(judge=known_by_its_id_alone),
    "what was given back is not remembered": Rules(returned_once=None),
    "what was given back is remembered without its epoch": Rules(returned_once=lambda settled: settled.settlement_id),
    "postings are added up": Rules(totals_are_absolute=False),
    "postings have no versions": Rules(versions_are_compared=False),
    "postings have no epochs": Rules(postings_have_epochs=False),
    "a rebuild stays in its epoch": Rules(rebuild_raises_epoch=False),
    "a rebuild reads the log before it begins its epoch": Rules(read_with_the_epoch=False),
    "a rebuild begins an epoch on an open shard": Rules(planned_while_closed=False),
    "a rebuild opens without reading the epoch again": Rules(epoch_is_read_again=False),
    "a rebuild overwrites a newer bucket": Rules(newer_bucket_stays=False),
    "a rebuild opens on whichever server answers": Rules(server_is_compared=False),
}


@pytest.mark.parametrize("rules", MUTANTS.values(), ids=MUTANTS)
def test_a_simpler_rule_breaks_a_law(rules: Rules) -> None:
    with pytest.raises(Violation):
        search(rules, states_max=STATES_MAX)


def test_a_violation_names_the_shortest_way_to_it() -> None:
    way = r"the bucket has spent 10, the log 5: settle first > consume first of 1 > apply 1 of 1$"
    with pytest.raises(Violation, match=way):
        search(Rules(judge=always_taken), states_max=STATES_MAX)
