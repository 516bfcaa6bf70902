"""What would put a bucket right: postings to the unit, a rebuild, or a person; and never two answers at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from billing.credits.auditing import BucketReading
from billing.credits.posting import Posted
from billing.credits.values import Balance, GrantBalance
from billing.reconciliation.facts import Charged, GrantFacts, LedgerFacts
from billing.reconciliation.repair.corrections import Correction, correction


def _reading(debt: int = 0, owed: int | None = None, **grant: int) -> BucketReading:
    """Read a bucket with one grant of 100, of which 10 are spent unless told otherwise."""
    own = GrantBalance(**{"grant_id": 7, "granted": 100, "available": 90, "spent": 10, **grant})
    balance = Balance(
        client_id="acme",
        epoch=1,
        grants=(own,),
        order=(7,),
        debt=debt,
        owed=debt if owed is None else owed,
        available=own.available,
        held=own.held,
        spent=own.spent + debt,
        granted=own.granted,
        expired=own.expired,
        voided=own.voided,
    )
    return BucketReading(client_id="acme", shard=3, at_ms=1_000, balance=balance, lent={})


def _ledger(spent: Mapping[int, int] | None = None, **changes: object) -> LedgerFacts:
    facts = LedgerFacts(
        client_id="acme",
        epoch=1,
        grants={7: GrantFacts(credits=100, applied=True, entries=1, entered=100)},
        spent={7: 10} if spent is None else spent,
    )
    return dataclasses.replace(facts, **changes)  # type: ignore[arg-type]


def _posts(made: Correction) -> list[tuple[int, int, int]]:
    assert made.rebuild is made.asked is made.doubt is made.unknown is None, made
    return [(one.grant_id, one.credits, one.restored) for one in made.postings]


@pytest.mark.parametrize(
    ("grant", "posts"),
    [
        ({}, []),
        ({"available": 91, "spent": 9}, [(7, 1, 0)]),
        ({"available": 89, "spent": 11}, [(7, -1, 0)]),
        ({"available": 91}, [(7, 0, -1)]),
        ({"available": 89}, [(7, 0, 1)]),
        ({"spent": 11}, [(7, -1, -1)]),
        ({"spent": 9}, [(7, 1, 1)]),
        ({"available": 90, "spent": 5}, [(7, 5, 5)]),
    ],
)
def test_given_amounts_changed_by_hand_when_corrected_then_a_posting_puts_them_right(
    grant: dict[str, int], posts: list[tuple[int, int, int]]
) -> None:
    """L2: after `credits` from available to spent and `restored` to available, the bucket is what the log says."""
    made = correction(_reading(**grant), _ledger())

    assert _posts(made) == posts
    for one in made.postings:
        now = {"available": 90, "spent": 10} | grant
        assert now["available"] + one.restored - one.credits == 90
        assert now["spent"] + one.credits == 10


def test_given_a_posting_that_waits_when_corrected_then_it_is_not_posted_twice() -> None:
    """A second repair, before the first is in the bucket, finds nothing."""
    assert _posts(correction(_reading(spent=9), _ledger(posted={7: Posted(version=1, credits=1, restored=1)}))) == []
    seen = _reading(spent=9)
    assert seen.balance is not None
    told = dataclasses.replace(seen.balance, posted={7: Posted(version=1, credits=1, restored=1)})
    again = dataclasses.replace(seen, balance=told)
    assert _posts(correction(again, _ledger(posted={7: Posted(version=1, credits=1, restored=1)}))) == [(7, 1, 1)]


@pytest.mark.parametrize(
    "now", [None, Posted(version=1, credits=6, restored=0), Posted(version=2, credits=5, restored=0)]
)
def test_given_a_posting_that_postgresql_has_lost_when_corrected_then_the_shard_is_rebuilt(now: Posted | None) -> None:
    """A version that is used again is taken for seen: no posting can be told to this bucket. A later one can."""
    seen = _reading(spent=15, available=85)
    assert seen.balance is not None
    told = dataclasses.replace(seen.balance, posted={7: Posted(version=2, credits=6, restored=0)})
    seen = dataclasses.replace(seen, balance=told)
    made = correction(seen, _ledger(posted={7: now} if now else {}))
    assert "it has lost transactions" in str(made.rebuild)
    assert made.postings == ()
    later = Posted(version=3, credits=1, restored=0)
    assert _posts(correction(seen, _ledger(posted={7: later}))) == []


def test_given_events_after_the_reading_when_corrected_then_they_do_not_count() -> None:
    tail = (Charged(at_ms=1_001, epoch=1, grants={7: 5}),)
    assert _posts(correction(_reading(), _ledger({7: 15}, tail=tail))) == []
    unsure = (Charged(at_ms=1_000, epoch=1, grants={7: 5}),)
    assert correction(_reading(), _ledger({7: 15}, tail=unsure)).unknown is not None


def test_given_debt_of_the_log_when_the_bucket_lacks_it_then_it_is_posted_as_debt() -> None:
    assert _posts(correction(_reading(), _ledger({7: 10, 0: 4}))) == [(0, 4, 0)]


@pytest.mark.parametrize(
    "reading",
    [
        _reading(held=1),
        _reading(granted=101, available=91),
        _reading(debt=1, owed=0),
        _reading(owed=1),
        _reading(available=95, spent=-5, repaid=10, debt=10, owed=0),
        _reading(available=0, expired=91),
        dataclasses.replace(_reading(), balance=None),
        dataclasses.replace(_reading(), balance=None, unreadable="rubbish"),
    ],
    ids=["held", "granted", "debt", "owed", "below zero", "ended", "missing", "corrupt"],
)
def test_given_what_no_posting_expresses_when_corrected_then_the_shard_is_rebuilt(reading: BucketReading) -> None:
    made = correction(reading, _ledger())
    assert made.rebuild is not None
    assert made.postings == ()


def test_given_a_ledger_that_contradicts_itself_when_corrected_then_nothing_is_done_by_it() -> None:
    facts = {7: GrantFacts(credits=101, applied=True, entries=1, entered=100)}
    made = correction(_reading(spent=9), _ledger(grants=facts))
    assert made.doubt is not None
    assert (made.postings, made.rebuild) == ((), None)


def test_given_a_rebuild_that_is_asked_for_when_corrected_then_it_is_waited_for() -> None:
    made = correction(_reading(held=1), _ledger(rebuild="why"))
    assert (made.asked, made.rebuild) == ("why", None)
    assert not made.is_nothing
