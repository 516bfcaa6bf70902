"""A dead letter is replayed once, whole or not at all, and keeps no other waiting (L3, L6, L10)."""

from __future__ import annotations

import dataclasses
import importlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from billing import admin
from billing.events.marker import encode_marker
from billing.events.usage_event import DRY_RUN
from billing.fulfillment.delivery import Delivered
from billing.fulfillment.letter import ReplayedLetter
from billing.fulfillment.log import BatchReport
from billing.fulfillment.replaying import ReplayLog
from billing.reconciliation.reconcile import reconcile
from billing.recovery.postings import apply_postings
from tests.integration.consuming import check_laws, execute, query, rows, usage_log
from tests.integration.granting import grant
from tests.integration.lettering import body_of, charge, kept, outcomes, refuse, states
from tests.integration.recovering import Business
from tests.sessions import wait_for_the_dead
from tests.usage_events import delivered, usage_event
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


def test_given_an_event_of_an_unknown_client_when_it_is_added_and_the_letter_replayed_then_the_grants_pay_it_once(
    business: Business,
) -> None:
    """L3, L6: rows, sums, postings and bucket are those of an event that came in time; a second replay adds nothing."""
    settings, event = business.settings, charge("brook", 30)
    truncated = body_of(charge("acme"))[:100]
    log = usage_log(settings)
    assert log.write([delivered(event)]).dead_letters == 1
    log.close()
    [cut] = refuse(settings, truncated)
    [stranger] = [letter_id for letter_id in states(settings) if letter_id != cut]
    assert outcomes(admin.replay_dead_letters(settings)) == [(stranger, "refused"), (cut, "refused")]
    before = kept(settings)

    business.client("brook", 100)
    done = admin.replay_dead_letters(settings)

    assert outcomes(done) == [(stranger, "written"), (cut, "refused")]
    assert done.letters[0].run_id == event.run_id
    assert "truncated" in done.letters[1].reason
    assert states(settings) == {stranger: ("replayed", 2), cut: ("open", 3)}
    assert apply_postings(business.runtime) == 1
    [(paid,)] = query(settings, "SELECT grants FROM usage_history")
    assert [share["credits"] for share in paid] == [30]
    assert paid[0]["grant"] > 0

    again = admin.replay_dead_letters(settings, [stranger])

    assert [(each.before, each.outcome) for each in again.letters] == [("replayed", "duplicate")]
    assert apply_postings(business.runtime) == 0
    balance = business.runtime.buckets.balance("brook")
    assert balance is not None
    assert (balance.available, balance.spent, balance.owed) == (70, 30, 0)
    assert reconcile(business.runtime, stripe=False, record=False).ok
    check_laws(settings, [("brook", body_of(event))])
    assert kept(settings) == before


def test_given_letters_of_older_epochs_or_of_this_one_when_replayed_then_the_bucket_is_told_what_it_does_not_know(
    business: Business,
) -> None:
    """L6: what a replay writes is judged as any event: the bucket of its epoch has paid it, a later one has not."""
    business.client("brook", 100)
    refuse(business.settings, body_of(charge("brook", 7, epoch=1)))
    execute(business.settings, "UPDATE client SET epoch = 2 WHERE client_id = 'brook'")
    refuse(business.settings, body_of(charge("brook", 5, epoch=2)))

    admin.replay_dead_letters(business.settings)

    assert query(business.settings, "SELECT client_id, epoch, grant_id, credits FROM posting") == [("brook", 2, 1, 7)]


def test_given_a_letter_that_the_database_refuses_when_all_are_replayed_then_the_others_are_written(
    business: Business,
) -> None:
    """L10: the batch is halved until the refused letter stands alone; it stays open with its new reason."""
    settings = business.settings
    execute(settings, "ALTER TABLE usage_history ADD CONSTRAINT no_such_work CHECK (correlation_id NOT LIKE 'bad%')")
    events = [charge("acme", task_id=f"bad {number}" if number == 4 else f"good {number}") for number in range(9)]
    ids = refuse(settings, *map(body_of, events))

    done = admin.replay_dead_letters(settings)

    assert done.outcomes == {"written": 8, "refused": 1}
    assert [letter.letter_id for letter in done.letters if letter.outcome == "refused"] == [ids[4]]
    found = admin.dead_letters(settings)
    assert [(letter.letter_id, letter.refusals) for letter in found.letters] == [(ids[4], 2)]
    assert found.letters[0].reason.startswith("refused by the log: ")
    assert "no_such_work" in found.letters[0].reason
    execute(settings, "ALTER TABLE usage_history DROP CONSTRAINT no_such_work")
    assert admin.replay_dead_letters(settings).outcomes == {"written": 1}
    check_laws(settings, [("acme", body_of(event)) for event in events])


def test_given_many_letters_when_replayed_then_each_batch_is_bounded_by_events_and_by_bytes(
    business: Business,
) -> None:
    """L9: one transaction never holds more than a consumer's batch; a letter beyond the bound goes alone."""
    small = dataclasses.replace(business.settings, batch_events=4, batch_bytes=1_024)
    sizes = [10] * 6 + [600, 600, 5_000, 10]
    for number, size in enumerate(sizes):  # one by one: ids are given in the order of the digests
        refuse(small, b"%d " % number + b"x" * size)
    batches: list[int] = []

    done = admin.replay_dead_letters(small, tell=lambda batch: batches.append(len(batch)))

    assert batches == [4, 3, 1, 1, 1]
    assert done.outcomes == {"refused": 10}
    admin.close(small)


@pytest.mark.parametrize("point", ["before the mark", "before commit", "after commit"])
def test_given_a_replay_killed_with_sigkill_then_each_batch_is_whole_or_not_there(
    point: str, business: Business
) -> None:
    """L3: a letter is marked in the transaction of its rows; the next replay finishes what is left."""
    settings = dataclasses.replace(business.settings, batch_events=5)
    events = [charge("acme") for _ in range(12)]
    refuse(settings, *map(body_of, events))
    ended = subprocess.run(
        [sys.executable, "-m", "tests.integration.killed_replay", json.dumps(dataclasses.asdict(settings)), point],
        cwd=ROOT,
        timeout=240,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    wait_for_the_dead(settings.database_url)
    written = 10 if point == "after commit" else 5
    assert rows(settings) == written
    assert sum(state == "replayed" for state, _ in states(settings).values()) == written

    assert admin.replay_dead_letters(settings).outcomes == {"written": 12 - written}

    check_laws(settings, [("acme", body_of(event)) for event in events])
    admin.close(settings)


def test_given_replays_at_once_beside_a_consumer_that_gets_the_same_events_then_each_is_one_row(
    business: Business,
) -> None:
    """L3: whoever comes first writes it, whoever comes second has a duplicate, and nobody waits in a circle."""
    settings = dataclasses.replace(business.settings, batch_events=10)
    events = [
        charge(business.client(f"client-{number % 5}") if number < 5 else f"client-{number % 5}", 3)
        for number in range(100)
    ]
    refuse(settings, *map(body_of, events))

    def consume() -> int:
        log = usage_log(settings)
        written = sum(
            log.write([delivered(event) for event in events[at : at + 10]]).events for at in range(0, 100, 10)
        )
        log.close()
        return written

    def replay() -> int:
        return admin.replay_dead_letters(settings).outcomes.get("written", 0)

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(consume), *(pool.submit(replay) for _ in range(3))]
        written = sum(job.result() for job in jobs)

    assert written == 100
    assert {state for state, _ in states(settings).values()} == {"replayed"}
    check_laws(settings, [(event.client_id, body_of(event)) for event in events])
    admin.close(settings)


class Slow(ReplayLog):
    """A replay that waits for the test before it commits."""

    began = threading.Event()
    go = threading.Event()

    def _write(self, cursor: Any, batch: Sequence[Delivered], *, look: bool) -> BatchReport:
        report = super()._write(cursor, batch, look=look)
        self.began.set()
        assert self.go.wait(120)
        return report


def test_given_a_replay_and_a_consumer_with_direct_events_of_one_client_then_a_grant_is_not_promised_twice(
    business: Business, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client has one writer: the consumer's batch waits for the replay's commit, and sees what that has taken."""
    settings = business.settings
    grant(business, 10, "k")
    refuse(settings, body_of(charge("acme", 10)))
    monkeypatch.setattr(importlib.import_module("billing.admin.dead_letters"), "ReplayLog", Slow)
    log = usage_log(settings)

    with ThreadPoolExecutor(2) as pool:
        replaying = pool.submit(admin.replay_dead_letters, settings)
        assert Slow.began.wait(120)
        consuming = pool.submit(log.write, [delivered(charge("acme", 10))])
        waiting = """SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database
                     WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted"""
        wait_until(lambda: consuming.done() or query(settings, waiting) == [(1,)], "the consumer waits")
        Slow.go.set()
        assert replaying.result().outcomes == {"written": 1}
        assert consuming.result().events == 1
    log.close()

    assert sorted(query(settings, "SELECT grant_id, credits FROM grant_spent")) == [(0, 10), (1, 10)]


def test_given_two_copies_of_a_run_a_marker_and_a_dry_run_when_replayed_then_each_letter_says_what_became_of_it(
    business: Business,
) -> None:
    first = charge("acme", 4)
    copy = msgspec.structs.replace(first, attempt=2)
    token = usage_event().run_id
    dry = msgspec.structs.replace(
        charge("nobody", 0),
        mode=DRY_RUN,
        lines=(msgspec.structs.replace(charge("nobody").lines[0], credits=0, grants=()),),
    )
    ids = refuse(business.settings, body_of(first), body_of(copy), encode_marker(token, 3), body_of(dry))

    done = admin.replay_dead_letters(business.settings)

    # Letters of one batch have their ids in the order of their digests, so that either copy may be the first.
    assert {ids.index(letter_id): outcome for letter_id, outcome in outcomes(done)} in (
        {0: "written", 1: "duplicate", 2: "marker", 3: "dropped"},
        {0: "duplicate", 1: "written", 2: "marker", 3: "dropped"},
    )
    assert rows(business.settings) == 1
    assert query(business.settings, "SELECT token, shard FROM recovery_marker") == [(token, 3)]
    assert {state for state, _ in states(business.settings).values()} == {"replayed"}


def test_given_a_replay_of_letters_by_reason_then_the_others_stay_and_new_letters_do_not_keep_it_from_ending(
    business: Business,
) -> None:
    """L9: a replay of all goes up to the letters that there were when it began."""
    settings = dataclasses.replace(business.settings, batch_events=1)
    first = refuse(settings, b"1", b"2", reason="the reason")
    [other] = refuse(settings, b"3", reason="another")
    done: list[int] = []

    def tell(batch: Sequence[ReplayedLetter]) -> None:
        done.extend(letter.letter_id for letter in batch)
        refuse(settings, b"new %d" % len(done), reason="the reason")

    admin.replay_dead_letters(settings, reason="reason", tell=tell)

    assert done == first
    assert states(settings)[other] == ("open", 1)
    admin.close(settings)
