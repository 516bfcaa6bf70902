"""Dead letters are kept as they came; what was decided of one stands until another decision is made (L7)."""

from __future__ import annotations

import dataclasses

import psycopg
import pytest

from billing import admin
from billing.core.errors import InvalidValue
from billing.core.settings import Settings
from billing.reconciliation.reconcile import reconcile
from billing.reconciliation.repair.repair import plan_repair, repair
from billing.recovery.postings import apply_postings
from tests.integration.consuming import execute, rows
from tests.integration.granting import balance_of, grant
from tests.integration.lettering import body_of, charge, kept, outcomes, refuse, states
from tests.integration.posting import SHARD, settled, sums
from tests.integration.recovering import Business
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


def test_given_a_discarded_letter_then_it_is_kept_and_replayed_only_when_that_is_said(business: Business) -> None:
    """A decision stands until another one is made, and both can be read."""
    settings = business.settings
    ours, other = refuse(settings, body_of(charge("acme", 6)), body_of(charge("acme", 7)))
    before = kept(settings)

    [letter] = admin.discard_dead_letters(settings, [ours], reason="a test of ours")
    assert (letter.state, letter.remark) == ("discarded", "a test of ours")
    [same] = admin.discard_dead_letters(settings, [ours, ours], reason="another reason")
    assert same == letter

    with pytest.raises(InvalidValue, match=rf"^letter_id: {ours}: was discarded; give --discarded"):
        admin.replay_dead_letters(settings, [other, ours])
    assert rows(settings) == 0
    assert outcomes(admin.replay_dead_letters(settings)) == [(other, "written")]
    with pytest.raises(InvalidValue, match=rf"^letter_id: {other}: was replayed"):
        admin.discard_dead_letters(settings, [other], reason="too late")
    with pytest.raises(InvalidValue, match=r"^letter_id: 99: is not a dead letter"):
        admin.discard_dead_letters(settings, [ours, 99], reason="unknown")
    with pytest.raises(InvalidValue, match=r"^reason: ' ': must say why"):
        admin.discard_dead_letters(settings, [ours], reason=" ")

    assert outcomes(admin.replay_dead_letters(settings, discarded=True)) == [(ours, "written")]
    assert admin.dead_letter(settings, ours).letter.remark == "written; was discarded: a test of ours"
    assert kept(settings) == before


def test_given_a_letter_that_was_decided_when_its_bytes_are_refused_again_then_the_decision_stands_and_it_is_counted(
    business: Business,
) -> None:
    """The same bytes are the same letter: what is in the log stays there, what was discarded stays discarded."""
    settings, good = business.settings, body_of(charge("acme"))
    replayed, discarded = refuse(settings, good, b"junk")
    admin.replay_dead_letters(settings, [replayed])
    admin.discard_dead_letters(settings, [discarded], reason="junk")

    refuse(settings, good, b"junk", reason="a bad deploy")

    assert states(settings) == {replayed: ("replayed", 2), discarded: ("discarded", 2)}
    assert admin.dead_letter(settings, discarded).letter.reason == "a bad deploy"
    assert admin.dead_letters(settings).letters == []
    assert admin.replay_dead_letters(settings).outcomes == {}
    assert rows(settings) == 1


def test_given_a_letter_that_the_bucket_has_paid_when_discarded_then_a_repair_gives_it_back_and_after_a_replay_takes_it(
    business: Business,
) -> None:
    """L2: until its event is a row, what the bucket paid is a difference; a repair follows what was decided."""
    runtime = business.runtime
    runtime.settings = dataclasses.replace(business.settings, reconcile_wait_seconds=1.0)
    grant(business, 100, "k")
    [letter_id] = refuse(business.settings, settled(business, 40, "a"))
    [entry] = runtime.buckets.outbox(SHARD, older_than_ms=0, count=10)
    runtime.buckets.forget([(SHARD, entry.entry_id)])  # its publish was confirmed

    def agree() -> bool:
        repair(runtime, plan_repair(runtime, stripe=False), made_by="tester@here")
        apply_postings(runtime)
        return reconcile(runtime, stripe=False, record=False).ok

    admin.discard_dead_letters(business.settings, [letter_id], reason="the work was never done")
    assert sums(balance_of(business)) == (60, 0, 40, 0)
    with business.consuming():  # what proves that nothing is on its way
        wait_until(agree, "the books agree")
        assert sums(balance_of(business)) == (100, 0, 0, 0)
        admin.replay_dead_letters(business.settings, [letter_id], discarded=True)
        wait_until(agree, "the books agree again")
    assert sums(balance_of(business)) == (60, 0, 40, 0)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM dead_letter",
        "TRUNCATE dead_letter",
        "UPDATE dead_letter SET body = ''",
        "UPDATE dead_letter SET digest = sha256('')",
        "UPDATE dead_letter SET received_at = now()",
    ],
)
def test_given_the_owner_when_it_deletes_or_rewrites_a_letter_then_it_is_refused(
    statement: str, business: Business
) -> None:
    """L7: only what became of a letter changes."""
    refuse(business.settings, b"junk")
    with pytest.raises(psycopg.errors.RestrictViolation, match="a letter is kept as it came"):
        execute(business.settings, statement)


def test_given_letters_when_listed_then_pages_are_bounded_newest_first_with_counts_by_state_and_reason(
    database: Settings,
) -> None:
    """L9: a page is bounded, and what it leaves out is counted; reasons are counted without the values they quote."""
    for number in range(7):
        refuse(database, b"%d" % number, reason=f"client_id: 'client-{number}': is not a known client")
    refuse(database, b"x", b"y", reason="body: JSON is malformed (byte 17)")
    [last] = refuse(database, b"%", reason="100%")
    admin.discard_dead_letters(database, [last], reason="no reason")
    seen: list[int] = []
    before = None
    while True:
        found = admin.dead_letters(database, before=before, limit=4)
        assert found.states == {"open": 9}
        assert list(found.reasons.items()) == [
            ("client_id: …: is not a known client", 7),
            ("body: JSON is malformed (byte …)", 2),
        ]
        seen += [letter.letter_id for letter in found.letters]
        if not found.more:
            break
        before = seen[-1]
    assert seen == sorted(set(seen), reverse=True)
    assert len(seen) == 9
    assert admin.dead_letters(database, reason="MALFORMED").states == {"open": 2}
    assert admin.dead_letters(database, queue="another").states == {}
    assert admin.dead_letters(database, state=None).states == {"open": 9, "discarded": 1}
    for bad in ({"limit": 0}, {"limit": 1_001}, {"state": "gone"}, {"reason": "\x00"}, {"before": -1}):
        with pytest.raises(InvalidValue, match=f"^{next(iter(bad))}: "):
            admin.dead_letters(database, **bad)
    admin.close(database)
