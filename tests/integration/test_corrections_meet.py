"""Corrections where they meet what others own: the archive, dead letters, and who tampers with them (L3, L7, L8)."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from billing import admin
from billing.core.errors import InvalidValue
from billing.events.usage_event import UsageEvent
from billing.fulfillment.log import UsageLog
from billing.reconciliation.reconcile import reconcile
from billing.recovery.postings import apply_postings
from billing.schema.archiving import InUse
from tests.integration.adjusting import charge, correct
from tests.integration.archiving import archive
from tests.integration.consuming import execute, query, usage_log
from tests.integration.granting import balance_of, grant
from tests.integration.lettering import body_of, refuse
from tests.integration.lettering import charge as a_charge
from tests.integration.posting import assert_at_work, sums
from tests.integration.recovering import Business
from tests.integration.test_adjust_usage_stripe import link_to_stripe, plan
from tests.usage_events import delivered, paid_line, usage_event
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


def archive_months(business: Business) -> list[str]:
    """Move every month that has rows to the archive, as if it were old; return which these are."""
    moved = []
    for part in admin.partitions(business.settings).partitions:
        if part.is_month and part.rows:
            assert part.start is not None
            assert archive(business.settings, part.start).place == "archive"
            moved.append(part.month)
    return moved


def test_given_a_client_that_got_all_back_when_a_month_is_archived_then_it_does_not_keep_it(business: Business) -> None:
    """L9: what is carried waits for usage that may never come; usage that a plan would carry keeps the month."""
    link_to_stripe(business.runtime.engine)
    grant(business, 100, "k")
    correct(business, charge(business, 40, "a"), -40)
    assert plan(business.runtime.engine) == []
    later = charge(business, 7, "b")
    with pytest.raises(InvalidValue, match="is used by client acme for credits that no increment carries yet"):
        archive_months(business)
    correct(business, later, -7)
    assert plan(business.runtime.engine) == []
    assert len(archive_months(business)) == 1
    assert_at_work(business)


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE usage_correction SET credits = -1",
        "UPDATE usage_correction SET grants = '[]'",
        "DELETE FROM usage_correction",
        """INSERT INTO usage_correction SELECT gen_random_uuid(), client_id, 'b', corrects, 0, -1, grants, '',
           created_at FROM usage_correction""",
    ],
    ids=["credits", "grants", "gone", "made up"],
)
def test_given_a_correction_that_was_tampered_with_when_reconciled_then_it_is_named(
    business: Business, tampering: str
) -> None:
    """L7: the bound of the next correction is what that table says, so that it must be what the log says."""
    grant(business, 100, "k")
    correct(business, charge(business, 40, "a"), -10)
    assert_at_work(business)
    execute(business.settings, "ALTER TABLE usage_correction DISABLE TRIGGER ALL")
    execute(business.settings, tampering)
    report = reconcile(business.runtime, stripe=False, record=False)
    (found,) = report.discrepancies
    assert "the log and usage_correction differ on its correction" in found.found


#: Within what a run id may be ahead: a month that no event of now, and no correction, belongs to.
_AHEAD_MS = 25 * 86_400_000


def outcomes(business: Business) -> dict[int, str]:
    """Replay all letters; return what became of each."""
    return {one.letter_id: one.outcome for one in admin.replay_dead_letters(business.settings).letters}


def ahead(credits_: int, task_id: str) -> UsageEvent:
    """Return the direct event of a run of next month."""
    now = time.time_ns() // 1_000_000
    lines = [paid_line(shares=[(0, credits_)])]
    return usage_event(task_id=task_id, lines=lines, epoch=0, at_milliseconds=now + _AHEAD_MS)


def test_given_an_archived_month_when_its_line_is_corrected_and_its_letter_replayed_then_the_books_agree(
    business: Business,
) -> None:
    """L2, L3, L7: wherever the month is meanwhile, a line is returned once, and what the archive has not waits."""
    settings = business.settings
    grant(business, 100, "k")
    first, second = ahead(40, "a"), ahead(20, "b")
    log = usage_log(settings)
    log.write([delivered(first)])
    log.close()
    assert apply_postings(business.runtime) == 1
    known, unknown = refuse(settings, body_of(first), body_of(second))
    [month] = archive_months(business)

    correct(business, first.run_id, -10)
    assert sums(assert_at_work(business)) == (70, 0, 30, 0)
    assert outcomes(business) == {known: "duplicate", unknown: "refused"}

    admin.attach_month(settings, month)
    correct(business, first.run_id, -30, again=True)
    with pytest.raises(InvalidValue, match="must be at least 0: "):
        correct(business, first.run_id, -1, again=True)
    assert outcomes(business) == {unknown: "written"}
    assert apply_postings(business.runtime) == 1
    assert month in archive_months(business)
    assert sums(assert_at_work(business)) == (80, 0, 20, 0)


def until(done: threading.Event, work: Callable[[], object]) -> None:
    """Work again and again."""
    while not done.is_set():
        work()


def move(business: Business, month: str) -> None:
    """Move a month to the archive and back, as far as nobody is in the way."""
    with contextlib.suppress(InUse):
        admin.detach_month(business.settings, month, now=datetime.now(UTC) + timedelta(days=550))
    is_back(business, month)


def is_back(business: Business, month: str) -> bool:
    """Move a month back to the history; return whether it is there."""
    with contextlib.suppress(InUse):
        return admin.attach_month(business.settings, month).place == "history"
    return False


def lose_and_rebuild(business: Business) -> None:
    """Have the shard of acme be rebuilt."""
    business.request("acme")
    business.rebuilder.step()


def adjust_thrice(business: Business, event: UsageEvent) -> None:
    """Correct a run by -9 in all."""
    for number, credits_ in enumerate((-4, 2, -7)):
        once = f"{event.run_id}-{number}"
        admin.adjust_usage(business.settings, event.run_id, credits_, reason="a test", key=once, again=True)


def write_beside(log: UsageLog, letters: list[UsageEvent], known: list[UsageEvent]) -> None:
    """Write batches of three new runs, one that is a letter as well, and one that is there."""
    for number, letter in enumerate(letters):
        new = [a_charge("acme", 1) for _ in range(3)]
        log.write([delivered(event) for event in (*new, letter, known[number % len(known)])])


def test_given_consumers_replays_moves_and_rebuilds_at_once_when_lines_are_corrected_then_the_books_agree(
    business: Business,
) -> None:
    """L2, L3, L6, L7: nobody waits in a circle, and each correction, letter and event is one row."""
    settings = business.settings
    grant(business, 1_000, "k")
    events = [ahead(10, f"run-{number}") for number in range(12)]
    letters = [a_charge("acme", 3, task_id=f"letter-{number}") for number in range(20)]
    log = usage_log(settings)
    log.write([delivered(event) for event in events])
    refused = refuse(settings, *(body_of(event) for event in letters))
    [month] = {part.month for part in admin.partitions(settings).partitions if part.is_month and part.rows}

    done = threading.Event()
    with business.consuming(), ThreadPoolExecutor(12) as pool:
        beside = [
            pool.submit(until, done, lambda: move(business, month)),
            pool.submit(until, done, lambda: apply_postings(business.runtime)),
            pool.submit(until, done, lambda: lose_and_rebuild(business)),
        ]
        once = [pool.submit(write_beside, log, letters, events)]
        once += [pool.submit(adjust_thrice, business, event) for event in events]
        replays = [pool.submit(admin.replay_dead_letters, settings, [letter]) for letter in refused]
        try:
            for each in once:
                each.result()
            for replay in replays:
                replay.result()
        finally:
            done.set()
        for loop in beside:
            loop.result()
        wait_until(lambda: business.rebuilder.step() == 0, "no rebuild is asked for")
    log.close()
    wait_until(lambda: is_back(business, month), "the month is back")
    wait_until(lambda: apply_postings(business.runtime) == 0, "no posting waits")

    assert query(settings, "SELECT state, count(*) FROM dead_letter GROUP BY 1") == [("replayed", 20)]
    expected = 12 * 10 + 20 * 3 + 60 - 12 * 9
    assert query(settings, "SELECT count(*), sum(credits) FROM usage_ever") == [(12 + 20 + 60 + 36, expected)]
    assert assert_at_work(business, epoch=balance_of(business).epoch).spent == expected
