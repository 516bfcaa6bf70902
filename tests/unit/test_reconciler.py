"""The pure parts of the continuous reconciler: its pace, what stands, and what it could not compare."""

from __future__ import annotations

from billing.reconciliation.continuous import missed as missing
from billing.reconciliation.continuous import standing as stand
from billing.reconciliation.continuous.missed import PASSES_MAX, Missed, summed
from billing.reconciliation.continuous.pace import Schedule, Share
from billing.reconciliation.continuous.standing import Standing, StandingBook, thing_of
from billing.reconciliation.report import DISCREPANCIES_MAX, Discrepancy


def _found(by: int | None = 1, *, law: str = "L2 spent", grant: int | None = 7, text: str = "differs") -> Discrepancy:
    return Discrepancy(law=law, client_id="acme", grant_id=grant, found=text, differs_by=by)


def _stands(found: Discrepancy, number: int = 1) -> Standing:
    return Standing(discrepancy_id=number, thing=thing_of(found), found=found.found, differs_by=found.differs_by)


def test_given_a_pass_when_time_goes_by_then_as_many_clients_are_due() -> None:
    schedule = Schedule(20.0)
    assert schedule.may_begin(0.0)
    schedule.begin(100.0, 10_000)
    assert [schedule.due(100.0, 0), schedule.due(100.0, 500)] == [True, False]
    assert [schedule.due(101.0, 500), schedule.due(101.0, 501)] == [True, False]
    assert schedule.due(120.0, 10_000)
    assert not schedule.may_begin(119.9)
    assert schedule.may_begin(120.0)


def test_given_a_pass_of_another_worker_when_it_is_gone_on_with_then_its_part_is_done() -> None:
    schedule = Schedule(20.0)
    schedule.begin(100.0, 10_000, done=9_000)
    assert schedule.due(100.0, 9_000)
    assert not schedule.due(100.0, 9_500)


def test_given_work_without_end_when_it_is_done_then_it_takes_its_share() -> None:
    share, now, computed = Share(25), 1_000.0, 0.0
    share.is_left(now)
    while now < 1_100.0:
        if share.is_left(now):
            share.worked(now + 0.3, computed=0.3, waited=0.0)
            computed, now = computed + 0.3, now + 0.3
        now += 0.01
    assert 24.0 < computed < 26.5


def test_given_a_server_that_is_waited_for_when_it_is_slow_then_half_of_it_counts() -> None:
    assert Share(25).worked(0.0, computed=1.0, waited=4.0) == 3.0


def test_given_a_long_silence_when_it_ends_then_little_is_saved_up() -> None:
    share = Share(25)
    assert share.is_left(1_000_000.0)
    share.worked(1_000_000.0, computed=1.5, waited=0.0)
    assert not share.is_left(1_000_001.0)
    assert share.is_left(1_000_003.0)


def test_given_the_same_thing_again_when_judged_then_nothing_is_new() -> None:
    book = StandingBook([_stands(_found(text="Redis says 10"))])
    assert book.judge("acme", {"L2 spent"}, [_found(text="Redis says 11")]) == stand.Changes()


def test_given_a_law_that_was_not_looked_at_when_judged_then_what_stands_of_it_stays() -> None:
    book = StandingBook([_stands(_found())])
    assert book.judge("acme", {"L2 bucket"}, []) == stand.Changes()
    (closed,) = book.judge("acme", {"L2 bucket", "L2 spent"}, []).closed
    assert closed[1] == stand.GONE


def test_given_another_number_of_credits_when_judged_then_it_is_closed_and_opened_anew() -> None:
    book = StandingBook([_stands(_found(1))])
    changes = book.judge("acme", {"L2 spent"}, [_found(2)])
    assert [why for _, why in changes.closed] == ["differs by 2 now, no longer by 1"]
    assert changes.opened == (_found(2),)
    # Where the number is not known, the thing is the same.
    assert book.judge("acme", {"L2 spent"}, [_found(None)]) == stand.Changes()


def test_given_two_texts_of_one_thing_when_judged_then_they_are_one() -> None:
    (opened,) = StandingBook([]).judge("acme", {"L2 spent"}, [_found(None, text="a"), _found(3, text="b")]).opened
    assert (opened.found, opened.differs_by) == ("a; b", 3)


def test_given_as_many_as_are_kept_when_another_is_found_then_it_is_not_opened() -> None:
    """L9."""
    full = [_stands(_found(grant=number), number) for number in range(DISCREPANCIES_MAX)]
    book = StandingBook(full)
    assert book.judge("acme", set(), [_found(grant=-1)]).opened == ()
    book.remove(full[0])
    assert book.judge("acme", set(), [_found(grant=-1)]).opened == (_found(grant=-1),)


def test_given_passes_without_a_comparison_when_they_are_enough_then_it_is_told_once() -> None:
    missed = Missed()
    for _ in range(PASSES_MAX - 1):
        missed.missed("acme", "L2 spent", "why")
    assert missed.lasting() == {}
    missed.missed("acme", "L2 spent", "why")
    assert summed(missed.lasting()) == {"L2 spent: why": {"clients": 1, "named": ["acme"]}}
    assert missed.untold() == {"L2 spent: why": ["acme"]}
    assert missed.untold() == {}


def test_given_a_comparison_when_it_comes_about_then_all_begins_anew() -> None:
    missed = Missed()
    for _ in range(PASSES_MAX):
        missed.missed("acme", "L2 spent", "why")
    missed.untold()
    missed.compared("acme", "L2 spent")
    assert not missed
    assert missed.lasting() == {}


def test_given_very_many_clients_when_missed_then_a_bounded_number_is_remembered() -> None:
    """L9."""
    missed = Missed()
    for number in range(missing._KEPT_MAX + 5):
        missed.missed(str(number), "law", "why")
    assert len(missed._times) == missing._KEPT_MAX
