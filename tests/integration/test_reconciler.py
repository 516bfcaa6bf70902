"""The continuous reconciler, step by step on real servers: what stands is one row, and what is gone is closed."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from billing.core.clock import SystemClock
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.observability.doctor.finding import Verdict
from billing.observability.doctor.reconciliation import examine_reconciler
from billing.reconciliation import recording
from billing.reconciliation.continuous import keeping
from billing.reconciliation.continuous.reconciler import Reconciler
from billing.reconciliation.continuous.status import Status, read_status
from tests.integration.reconciling import SHARDS, Books, books_on
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

#: No pause between two passes, and all of a core: a test says itself when a step is taken.
AT_ONCE: dict[str, Any] = {"reconcile_pass_seconds": 0.001, "reconcile_load_percent": 100, "reconcile_slice": 2}


@pytest.fixture
def books(database: Settings, redis_url: str) -> Iterator[Books]:
    """Open books that are compared as fast as steps are taken."""
    with books_on(database, redis_url, **AT_ONCE) as opened:
        # The books' own clock goes on in its pauses alone; the reconciler's turns come round by themselves.
        opened.runtime.clock = SystemClock()
        yield opened


@pytest.fixture
def reconciler(books: Books) -> Iterator[Reconciler]:
    """Make a reconciler that nobody but the test tells to go on."""
    made = Reconciler(books.runtime)
    yield made
    made.close()


def status_of(books: Books) -> Status:
    """Return how it stands."""
    return read_status(books.runtime)


def passes(books: Books, reconciler: Reconciler, count: int = 1) -> Status:
    """Take steps until so many passes more have ended."""
    wanted = status_of(books).passes + count

    def ended() -> bool:
        reconciler.step()
        return status_of(books).passes >= wanted

    wait_until(ended, f"{count} passes")
    return status_of(books)


def rows(books: Books) -> list[tuple[Any, ...]]:
    """Return what was written, in its order: law, client, grant, what it closes."""
    return books.sql("SELECT law, client_id, grant_id, differs_by, closes FROM discrepancy ORDER BY discrepancy_id")


def test_given_clean_books_when_compared_over_and_over_then_nothing_is_written(
    books: Books, reconciler: Reconciler
) -> None:
    """L2: more clients than a slice, with debt, holds, a late run; and no run is kept of a pass without a finding."""
    for number in range(5):
        books.client(f"client-{number}", 10 + number)
    books.client("acme", 100, 50)
    books.use("acme", 60, 10)
    books.use("acme", 7, held=0)
    books.hold("acme", 20)
    books.client("debtor", 10)
    books.use("debtor", 25, held=10)

    status = passes(books, reconciler, 3)

    assert status.ok
    assert status.last_pass is not None
    assert status.last_pass.clients == 7
    assert rows(books) == []
    assert books.sql("SELECT count(*) FROM reconciliation_run") == [(0,)]


def test_given_a_credit_made_by_hand_when_compared_over_and_over_then_it_is_one_row_until_it_is_gone(
    books: Books, reconciler: Reconciler, caplog: pytest.LogCaptureFixture
) -> None:
    """L2, L7: opened once, told once, and closed by a row of its own that names it."""
    books.client("acme", 100)
    books.client("other", 100)
    (grant,) = books.grant_ids("acme")
    books.spoil_bucket("acme", f" {grant}:100:0:0", f" {grant}:101:0:0")

    with caplog.at_level(logging.WARNING, "billing"):
        status = passes(books, reconciler, 3)
    found = rows(books)
    lines = [record.getMessage() for record in caplog.records]
    caplog.clear()
    with caplog.at_level(logging.WARNING, "billing"):
        books.spoil_bucket("acme", f" {grant}:101:0:0", f" {grant}:100:0:0")
        mended = passes(books, reconciler, 2)

    assert [row[:4] for row in found] == [("L2 bucket", "acme", grant, -1), ("L2 bucket", "acme", None, -1)]
    assert [line.split(": ")[1] for line in lines] == ["L2 bucket", "L2 bucket"]
    assert (status.ok, status.standing) == (False, 2)
    assert [(one.thing.client_id, one.thing.grant_id) for one in status.stands] == [("acme", grant), ("acme", None)]
    assert mended.ok
    assert [row[4] for row in rows(books)] == [None, None, 1, 2]
    assert [": is gone: " in record.getMessage() for record in caplog.records] == [True, True]
    assert books.sql("SELECT count(*), count(*) FILTER (WHERE held) FROM reconciliation_run WHERE continuous") == [
        (2, 1)
    ]


def test_given_a_second_credit_on_the_same_grant_when_compared_then_it_does_not_hide_behind_the_first(
    books: Books, reconciler: Reconciler
) -> None:
    books.client("acme", 100)
    (grant,) = books.grant_ids("acme")
    hold = books.hold("acme", 10)
    books.forget_run(hold)
    passes(books, reconciler)
    books.spoil_bucket("acme", f" {grant}:90:10:0", f" {grant}:89:11:0")

    passes(books, reconciler)

    assert rows(books) == [
        ("L2 holds", "acme", grant, 10, None),
        ("L2 holds", "acme", grant, None, 1),
        ("L2 holds", "acme", grant, 11, None),
    ]


def test_given_a_rollup_that_lacks_a_credit_when_compared_then_its_row_is_named(
    books: Books, reconciler: Reconciler
) -> None:
    """L7: the sums are compared without the log; only to name the rows is it read, of that client alone."""
    books.client("acme", 100)
    books.use("acme", 40)
    books.sql("UPDATE usage_rollup SET credits = 39 WHERE client_id = 'acme'")

    passes(books, reconciler, 2)

    assert rows(books) == [("L7 sums of the log", "acme", None, -1, None)]
    ((named,),) = books.sql("SELECT rows FROM discrepancy")
    assert [(row["table"], row["sku"], row["usage_rollup"]) for row in named] == [("usage_rollup", "page", [39, 1])]


def test_given_events_that_may_be_on_their_way_when_compared_then_nothing_is_called_missing(
    books: Books, reconciler: Reconciler, caplog: pytest.LogCaptureFixture
) -> None:
    """L3: without a broker nothing proves that the log has all; that is said after some passes, and is not success."""
    books.client("acme", 100)
    books.use("acme", 10, write=False)

    def told() -> bool:
        reconciler.step()
        return status_of(books).not_compared > 0

    with caplog.at_level(logging.WARNING, "billing.reconciliation"):
        wait_until(told, "the client is told as not compared", timeout_seconds=120)
    status = status_of(books)
    books.deliver()
    mended = passes(books, reconciler, 1)

    assert rows(books) == []
    assert status.last_pass is not None
    ((reason, clients),) = status.last_pass.not_compared.items()
    assert reason.startswith("L2 spent: events may be on their way")
    assert clients == {"clients": 1, "named": ["acme"]}
    assert not status.ok
    assert sum("not compared for several passes (acme)" in line.getMessage() for line in caplog.records) == 1
    wait_until(lambda: passes(books, reconciler).ok, "it is compared again")
    assert mended.standing == 0


def test_given_a_shard_that_recovers_when_compared_then_it_is_told_and_the_others_are_compared(
    books: Books, reconciler: Reconciler
) -> None:
    """L6, L10."""
    books.client("acme", 100)
    books.client("other", 100)
    assert shard_of("acme", SHARDS) != shard_of("other", SHARDS)
    books.runtime.buckets.close(shard_of("acme", SHARDS))
    books.spoil_grants("other", f"g:{books.grant_ids('other')[0]}", 1)

    status = passes(books, reconciler, 4)

    assert status.last_pass is not None
    assert status.last_pass.not_compared["L2 bucket: its shard is recovering"] == {"clients": 1, "named": ["acme"]}
    assert {row[1] for row in rows(books)} == {"other"}


def test_given_two_workers_when_both_take_steps_then_one_leads_and_the_other_goes_on_where_it_fell_silent(
    books: Books, reconciler: Reconciler
) -> None:
    """One leader at a time; a new one knows what stands, and begins no pass anew."""
    books.runtime.settings = dataclasses.replace(books.settings, reconcile_pass_seconds=3_600.0)
    for number in range(6):
        books.client(f"client-{number}", 10)
    first = min(range(6), key=lambda number: (shard_of(f"client-{number}", SHARDS), number))
    books.spoil_grants(f"client-{first}", f"g:{books.grant_ids(f'client-{first}')[0]}", 1)
    other = Reconciler(books.runtime)
    try:
        assert reconciler.step() == 2
        before = rows(books)
        assert other.step() == 0
        books.sql("UPDATE reconciler SET stepped_at = stepped_at - interval '1 minute'")
        leader = books.sql("SELECT leader, clients FROM reconciler")
        assert other.step() > 0
        assert reconciler.step() == 0
    finally:
        other.close()

    assert len(before) == 2
    assert rows(books) == before
    assert leader[0][1] == 2
    ((now, clients),) = books.sql("SELECT leader, clients FROM reconciler")
    assert now != leader[0][0]
    assert clients == 4


def test_given_old_runs_when_room_is_made_then_what_stands_is_kept(
    books: Books, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L9: runs are bounded; a discrepancy that is not gone outlives them."""
    monkeypatch.setattr(recording, "RUNS_KEPT", 0)
    for name in ("acme", "other"):
        books.client(name, 100)
        books.spoil_grants(name, f"g:{books.grant_ids(name)[0]}", 1)
    passes(books, reconciler)
    books.spoil_grants("other", f"g:{books.grant_ids('other')[0]}", -1)
    passes(books, reconciler)
    assert len(rows(books)) == 6

    books.reconcile("other")

    assert {row[1] for row in rows(books)} == {"acme"}
    assert status_of(books).standing == 2


def test_given_passes_when_the_doctor_looks_then_it_says_when_and_what(books: Books, reconciler: Reconciler) -> None:
    (never,) = examine_reconciler(books.runtime)
    books.client("acme", 100)
    passes(books, reconciler)
    (fine,) = examine_reconciler(books.runtime)
    books.spoil_grants("acme", f"g:{books.grant_ids('acme')[0]}", 1)
    passes(books, reconciler)
    (broken,) = examine_reconciler(books.runtime)
    books.spoil_grants("acme", f"g:{books.grant_ids('acme')[0]}", -1)
    passes(books, reconciler)
    with books.runtime.engine.begin() as connection:
        place = keeping.place_of(connection)
        assert place is not None
        old = {**place.last_pass, "finished_at": "2026-01-01T00:00:00+00:00"}
        keeping.keep(connection, dataclasses.replace(place, last_pass=old))
    (late,) = examine_reconciler(books.runtime)
    books.runtime.settings = dataclasses.replace(books.settings, reconcile_pass_seconds=0)
    (off,) = examine_reconciler(books.runtime)

    assert (never.verdict, never.seen) == (Verdict.WARN, "continuous: has not ended a pass yet")
    assert (fine.verdict, fine.seen) == (Verdict.OK, "continuous: 0 min ago over 1 clients: nothing differs")
    assert (broken.verdict, broken.seen) == (Verdict.FAIL, "continuous: 0 min ago over 1 clients: 2 discrepancies")
    assert late.verdict is Verdict.WARN
    assert off.verdict is Verdict.WARN
    assert reconciler.step() == 0
