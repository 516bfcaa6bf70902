"""One client compared while Redis and PostgreSQL move on: what agrees, what waits, and what never will."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from billing.credits.auditing import BucketReading
from billing.credits.posting import Posted
from billing.credits.values import Balance, GrantBalance
from billing.reconciliation.facts import Charged, GrantFacts, LedgerFacts
from billing.reconciliation.pursuit import EPOCH_BEGAN, RECOVERING, UNDECIDED, UNREADABLE, Pursuit


def bucket(
    spent: int,
    *,
    at: int = 1_000,
    epoch: int = 1,
    debt: int = 0,
    granted: int = 100,
    beyond: Mapping[int, int] | None = None,
    posted: int = 0,
) -> BucketReading:
    """Read a bucket with one grant."""
    grant = GrantBalance(grant_id=7, granted=granted, available=granted - spent, spent=spent)
    balance = Balance(
        client_id="acme",
        epoch=epoch,
        grants=(grant,),
        order=(7,),
        debt=debt,
        owed=debt,
        available=granted - spent,
        held=0,
        spent=spent + debt,
        granted=granted,
        beyond=beyond or {},
        posted={7: Posted(version=1, credits=posted, restored=0)} if posted else {},
    )
    return BucketReading(client_id="acme", shard=1, at_ms=at, balance=balance, lent={})


def ledger(
    spent: Mapping[int, int],
    *tail: tuple[int, int],
    epoch: int = 1,
    tail_epoch: int = 1,
    rebuild: str | None = None,
    posted: int = 0,
) -> LedgerFacts:
    """Read PostgreSQL; `tail`: (when in ms, credits) of what grant 7 has paid since."""
    return LedgerFacts(
        client_id="acme",
        epoch=epoch,
        grants={7: GrantFacts(credits=100, applied=True, entries=1, entered=100)},
        spent=spent,
        tail=tuple(Charged(at_ms=at, epoch=tail_epoch, grants={7: credits_}) for at, credits_ in tail),
        rebuild=rebuild,
        posted={7: Posted(version=1, credits=posted, restored=0)} if posted else {},
    )


def pursued(*rounds: tuple[BucketReading, LedgerFacts]) -> Pursuit:
    """Pursue a client through rounds of which none agrees."""
    pursuit = Pursuit("acme")
    for reading, facts in rounds:
        pursuit.read(reading)
        assert pursuit.agreed(facts) is None
    return pursuit


def test_what_was_settled_after_the_reading_does_not_count() -> None:
    pursuit = Pursuit("acme")
    pursuit.read(bucket(10))
    assert pursuit.agreed(ledger({7: 17}, (1_001, 3), (2_000, 4))) is not None


def test_a_credit_that_moved_is_found_among_later_events() -> None:
    """A range from reading to reading would hide it."""
    pursuit = pursued((bucket(11), ledger({7: 17}, (1_001, 3), (2_000, 4))))
    (found,) = pursuit.discrepancies(0)
    assert found.found == "spent: Redis says 11, the log's grant_spent says 10"
    assert pursuit.left_out(0) is None


def test_an_event_on_its_way_is_waited_for_with_the_bucket_as_it_was() -> None:
    pursuit = pursued((bucket(10), ledger({7: 6})), (bucket(15, at=2_000), ledger({7: 9}, (1_500, 3))))
    pursuit.read(bucket(20, at=3_000))
    agreed = pursuit.agreed(ledger({7: 13}, (1_500, 3)))
    assert agreed is not None
    assert agreed.at_ms == 1_000


def test_an_event_of_the_very_millisecond_is_unsure_and_another_reading_decides() -> None:
    facts = ledger({7: 13}, (1_000, 3))
    pursuit = pursued((bucket(10), facts))
    assert pursuit.left_out(0) == UNDECIDED  # it may be on either side
    assert list(pursuit.discrepancies(0)) == []
    pursuit.read(bucket(13, at=2_000))
    assert pursuit.agreed(ledger({7: 13}, (1_000, 3))) is not None


def test_an_unsure_reading_hides_no_credit_that_a_sure_one_misses() -> None:
    """The first bucket lacks a credit, which an event of its millisecond could explain; the second one lacks it too."""
    first = ledger({7: 13}, (1_000, 3))
    pursuit = pursued((bucket(12), first), (bucket(12, at=2_000), first))
    (found,) = pursuit.discrepancies(0)
    assert found.found == "spent: Redis says 12, the log's grant_spent says 13"
    assert pursuit.left_out(0) is None


def test_a_reading_that_differs_is_no_discrepancy_before_its_events_had_time() -> None:
    """Half of the wait at least: a fleet that goes on always has events on their way."""
    unsure = ledger({7: 13}, (1_000, 3))
    pursuit = pursued((bucket(11), unsure), (bucket(15, at=40_000), ledger({7: 13})))
    assert pursuit.left_out(60) == UNDECIDED
    assert pursued((bucket(9), ledger({7: 10})), (bucket(9, at=61_000), ledger({7: 10}))).left_out(60) is None


def test_an_unsure_event_excuses_no_more_than_its_credits() -> None:
    pursuit = pursued((bucket(14), ledger({7: 13}, (1_000, 3))))
    assert len(list(pursuit.discrepancies(0))) == 1


def test_events_of_older_epochs_count_whenever_they_were_settled() -> None:
    """A rebuild has put them into the bucket: a direct event's time is a worker's."""
    pursuit = Pursuit("acme")
    pursuit.read(bucket(13, epoch=2))
    assert pursuit.agreed(ledger({7: 13}, (9_000, 3), epoch=2, tail_epoch=0)) is not None


@pytest.mark.parametrize("posted", [30, -30])
def test_what_is_not_posted_yet_is_no_difference_and_one_credit_more_is(posted: int) -> None:
    """Given a posting that the bucket has not, then it agrees without it; with it, it agrees with the log."""
    waits = ledger({7: 50}, posted=posted)
    for spent, in_bucket in ((50 - posted, 0), (50, posted)):
        pursuit = Pursuit("acme")
        pursuit.read(bucket(spent + 1, posted=in_bucket))
        assert pursuit.agreed(waits) is None
        pursuit.read(bucket(spent, posted=in_bucket))
        assert pursuit.agreed(waits) is not None


def test_what_a_bucket_was_posted_and_postgresql_does_not_know_is_a_difference() -> None:
    """PostgreSQL has lost its last transactions: the log with what was posted for it, or a version used again."""
    pursuit = pursued((bucket(50, posted=30), ledger({7: 20})))
    assert [one.found for one in pursuit.discrepancies(0)] == [
        "postings: the bucket has version 1 (+30), PostgreSQL is at version 0 (+0): it has lost transactions",
        "spent: Redis says 50, the log's grant_spent says 20",
    ]
    pursuit = pursued((bucket(50, posted=30), ledger({7: 45}, posted=25)))
    assert len(list(pursuit.discrepancies(0))) == 2


def test_what_the_log_has_beyond_a_grant_is_debt_in_the_bucket() -> None:
    """A rebuild after losses cannot charge a grant more than it is worth; the sum is never changed."""
    pursuit = Pursuit("acme")
    pursuit.read(bucket(100, debt=8, beyond={7: 5}))
    assert pursuit.agreed(ledger({7: 105, 0: 3})) is not None


def test_a_clock_that_was_set_back_is_outwaited() -> None:
    """The log says of an event that it came after the reading, which had it: a later reading agrees."""
    pursuit = pursued((bucket(10), ledger({7: 10}, (1_400, 4))))
    pursuit.read(bucket(10, at=1_500))
    assert pursuit.agreed(ledger({7: 10}, (1_400, 4))) is not None


def test_a_new_epoch_begins_the_comparison_again() -> None:
    pursuit = pursued((bucket(10), ledger({7: 12}, epoch=2)))
    assert pursuit.left_out(0) == EPOCH_BEGAN
    pursuit.read(bucket(12, at=2_000, epoch=2))
    assert pursuit.since_ms == 2_000
    assert pursuit.agreed(ledger({7: 12}, epoch=2)) is not None


def test_a_bucket_that_stays_at_an_old_epoch_is_a_discrepancy() -> None:
    pursuit = pursued((bucket(10), ledger({7: 10}, epoch=2)), (bucket(10, at=2_000), ledger({7: 10}, epoch=2)))
    assert pursuit.left_out(0) is None
    (found,) = pursuit.discrepancies(0)
    assert found.found == "the bucket is of epoch 1, PostgreSQL is at 2"


def test_a_bucket_ahead_of_postgresql_is_a_discrepancy() -> None:
    """PostgreSQL was restored to an older state."""
    (found,) = pursued((bucket(10, epoch=3), ledger({7: 10}))).discrepancies(0)
    assert found.found == "the bucket is of epoch 3, PostgreSQL is at 1"


def test_what_cannot_be_read_is_left_out_with_its_reason() -> None:
    away = BucketReading(client_id="acme", shard=1, at_ms=0, recovering=True)
    rubbish = BucketReading(client_id="acme", shard=1, at_ms=1, unreadable="rubbish")
    assert pursued((away, ledger({7: 10}))).left_out(0) == RECOVERING
    assert pursued((rubbish, ledger({7: 10}))).left_out(0) == UNREADABLE
    waits = pursued((bucket(9), ledger({7: 10}, rebuild="run 1 was settled twice")))
    assert waits.left_out(0) == "its shard waits for a rebuild (run 1 was settled twice)"


def test_readings_are_bounded_and_the_oldest_stay() -> None:
    """L9: the oldest reading is the one for which the log has had the most time."""
    pursuit = Pursuit("acme")
    for number in range(100):
        pursuit.read(bucket(10 + number, at=1_000 + number, granted=1_000))
    assert len(pursuit._readings) == 8
    assert pursuit.since_ms == 1_000
    assert pursuit._readings[-1].at_ms == 1_099
