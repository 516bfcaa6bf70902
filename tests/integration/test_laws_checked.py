"""The laws in production: each is broken by hand, found by its check, told once, and found to hold again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

import billing
from billing import admin
from billing.alerts.announcing import announce
from billing.core.shards import shard_of
from billing.observability.laws import append_only, check, compared, recording
from billing.observability.laws.append_only import AppendOnly
from billing.observability.laws.ceiling import Ceiling
from billing.observability.laws.check import check_laws
from billing.observability.laws.compared import note_compared
from billing.observability.laws.law import Slice
from billing.observability.laws.liveness import Liveness
from billing.schema.months import name_of
from tests.hearing import hearing
from tests.integration.checking_laws import checked, examined, lawful, stands, told
from tests.integration.reconciling import Books, books_on

pytestmark = pytest.mark.integration


@pytest.fixture
def books(database: Any, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Books]:
    """Open books in order."""
    with lawful(database, redis_url, monkeypatch) as books:
        yield books


@pytest.fixture
def heard() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Listen for laws that are broken."""
    with hearing(billing.alerts.law_broken) as heard:
        yield heard


def test_a_law_that_holds_is_noted_and_nobody_is_told(books: Books) -> None:
    """Given a business in order, then every check is a row without a violation."""
    assert check_laws(books.runtime) == {"L1 ceiling": 0, "L7 append only": 0, "L9 liveness": 0}
    assert stands(books, "L1 ceiling").examined == 2
    assert told(books) == []
    assert examined(books, "fail") == []
    assert "3 laws held when they were last checked" in examined(books, "ok")
    assert any(text.startswith("never checked: L2 bucket") for text in examined(books, "warn"))


def test_l1_a_bucket_with_more_than_was_granted_is_told_once_per_crossing(
    books: Books, heard: list[tuple[str, dict[str, Any]]], caplog: pytest.LogCaptureFixture
) -> None:
    """Given a credit that nobody granted, then one alert however often it is checked, and another when it is back."""
    assert checked(books, Ceiling()).violations == 0
    (grant,) = books.grant_ids("acme")
    for crossing in (1, 2):
        books.spoil_bucket("acme", f" {grant}:100:0:0", f" {grant}:101:0:0")
        for _ in range(3):
            assert checked(books, Ceiling()).violations == 1
        said = f"L1 ceiling: client acme: grant {grant} of 100 has 101 available, held and spent"
        assert told(books) == [said] * crossing
        assert [text.split(" ago: ")[1] for text in examined(books, "fail")] == [said.partition(": ")[2]]
        books.spoil_bucket("acme", f" {grant}:101:0:0", f" {grant}:100:0:0")
        assert checked(books, Ceiling()).violations == 0
        assert examined(books, "fail") == []
    errors = [record for record in caplog.records if record.name == recording.__name__ and record.levelname == "ERROR"]
    assert len(errors) == 2
    announce(books.runtime)
    announce(books.runtime)
    assert [(call["law"], call["found"]) for _, call in heard] == [("L1 ceiling", said)] * 2


def test_l1_an_overdraft_that_nobody_allowed_is_found(books: Books) -> None:
    """Given a limit in a bucket, then it is one that PostgreSQL had; what was lent under an older one is no breach."""
    admin.set_overdraft(books.settings, "acme", 60, key="more")
    books.hold("acme", 150)
    admin.set_overdraft(books.settings, "acme", 0, key="none")
    assert checked(books, Ceiling()).violations == 0
    books.sql("DELETE FROM client_change")
    assert checked(books, Ceiling()).found == "client acme: holds were lent 50 of an overdraft that was never above 0"


def test_l1_debt_is_no_breach(books: Books) -> None:
    """Given work that cost more than it had held, then what is owed admits nothing, and the ceiling holds."""
    books.use("acme", 130, held=90)
    assert checked(books, Ceiling()).violations == 0


def test_a_check_goes_on_where_the_last_one_ended(books: Books) -> None:
    """Given time for one client at a time, then each has its turn, and what was found stands for a whole round."""
    one_by_one = dataclasses.replace(books.settings, reconcile_slice=1)
    first, second = sorted(("acme", "bob"), key=lambda client_id: shard_of(client_id, books.settings.shards))
    books.sql("UPDATE credit_grant SET credits = 10 WHERE client_id = %s", first)
    looks: list[tuple[str, int, int]] = []
    with books_on(one_by_one, one_by_one.redis_url) as slow:
        for turn in range(7):
            if turn == 3:
                books.sql("UPDATE credit_grant SET credits = 100")
            check_laws(slow.runtime, seconds=0, laws=(Ceiling(),))
            row = stands(slow, "L1 ceiling")
            looks.append((row.resume_after.partition(" ")[2], row.examined, row.violations))

    assert looks == [
        *[(first, 1, 1), (second, 1, 1), ("", 0, 1)],
        # It is mended, which is known for certain when the round has ended.
        *[(first, 1, 1), (second, 1, 1), ("", 0, 0), (first, 1, 0)],
    ]
    assert len(told(books)) == 1


def test_l1_what_cannot_be_read_is_not_said_to_hold(books: Books) -> None:
    """Given shards that are recovering, then the law has no row at all."""
    for shard in range(books.settings.shards):
        books.runtime.buckets.close(shard)
    assert check_laws(books.runtime, laws=(Ceiling(),)) == {}
    with books.runtime.engine.connect() as connection:
        assert recording.read(connection) == {}


@pytest.mark.parametrize("table", ["ledger_entry", "price", "archive.usage_history", "usage_history_legacy"])
def test_l7_a_trigger_that_is_off_is_found(books: Books, table: str) -> None:
    """Given a table that could be changed, then it is named; a look later it is mended, and that is known at once."""
    books.sql(f"ALTER TABLE {table} DISABLE TRIGGER billing_append_only")
    assert checked(books, AppendOnly()).found == f"may be changed, their trigger is missing or off: {table}"
    books.sql(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER billing_append_only")
    assert checked(books, AppendOnly()).violations == 0


def test_l7_rows_that_were_deleted_are_missed_though_every_trigger_is_back(books: Books) -> None:
    """Given a trigger that was taken away, rows with it, and is back, then the month has fewer rows than it had."""
    books.use("acme", 3)
    books.use("acme", 4)
    month = name_of(datetime.now(UTC))
    assert checked(books, AppendOnly()).examined == 2
    books.sql("CREATE TABLE kept AS SELECT * FROM usage_history WHERE credits = 3")
    books.sql(f"DELETE FROM {month} WHERE credits = 3", owner=True)
    books.sql(f"ALTER TABLE {month} ENABLE TRIGGER USER; ALTER TABLE {month} ENABLE ALWAYS TRIGGER billing_append_only")
    for _ in range(2):
        assert checked(books, AppendOnly()).found == f"{month} has 1 rows, and had 2"
    assert told(books) == [f"L7 append only: {month} has 1 rows, and had 2"]
    books.sql("INSERT INTO usage_history SELECT * FROM kept")
    assert checked(books, AppendOnly()).violations == 0


def test_l7_a_month_that_was_dropped_is_missed(books: Books) -> None:
    """Given a whole month of rows that is gone, then it is named with how many it had."""
    books.use("acme", 3)
    checked(books, AppendOnly())
    month = name_of(datetime.now(UTC))
    books.sql(f"DROP TABLE {month}")
    assert checked(books, AppendOnly()).found == f"{month} is gone, and had 1 rows"


def test_l7_rows_are_counted_in_slices(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given time for three rows at a time, then the counting goes on within a run of two lines, to the same end."""
    monkeypatch.setattr(append_only, "ROWS_MAX", 3)
    for _ in range(5):
        books.use("acme", 1, 2)
    month = name_of(datetime.now(UTC))
    rounds, turns = 0, 0
    while rounds < 2:
        check_laws(books.runtime, seconds=0, laws=(AppendOnly(),))
        row, turns = stands(books, "L7 append only"), turns + 1
        assert row.examined <= 3
        assert row.violations == 0
        rounds += not row.resume_after
        if not row.resume_after:
            assert row.remembered["rows"] == {month: 10}
    assert turns > 10


def test_what_reconciliation_finds_is_told_by_law(books: Books) -> None:
    """Given a rollup that differs, then the hourly run's verdict is its law's, and the next run's is it again."""
    books.use("acme", 3)
    run = {"client_ids": None, "stripe": True, "totals": None}
    books.sql("UPDATE usage_rollup SET credits = 4")
    books.reconcile(**run)
    assert note_compared(books.runtime) > 0
    assert stands(books, "L7 sums of the log").violations > 0
    assert stands(books, "L2 bucket").violations == 0
    assert note_compared(books.runtime) == 0, "nothing is written while nothing changes"
    assert any("L7 sums of the log: " in text for text in examined(books, "fail"))
    first = told(books)
    assert sum(text.startswith("L7 sums of the log: client acme: page in the hour") for text in first) == 1
    books.sql("UPDATE usage_rollup SET credits = 3")
    books.reconcile(**run)
    note_compared(books.runtime)
    assert stands(books, "L7 sums of the log").violations == 0
    assert told(books) == first


def test_a_law_that_cannot_be_looked_at_hides_no_other(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given Redis away, then the laws of PostgreSQL are checked, and the others keep their last row and grow old."""
    check_laws(books.runtime)
    before = stands(books, "L1 ceiling")
    away = dataclasses.replace(books.settings, redis_url="redis://127.0.0.1:1/0", redis_timeout_seconds=1.0)
    with books_on(away, away.redis_url) as cut:
        assert check_laws(cut.runtime) == {"L7 append only": 0}
    assert stands(books, "L1 ceiling") == before
    books.sql("UPDATE law_check SET checked_at = now() - interval '46 min' WHERE law = 'L1 ceiling'")
    assert "L1 ceiling held, and was last checked 46 min ago" in examined(books, "warn")
    assert check.LAW_SECONDS <= 60


def test_what_was_found_is_written_once_however_long_it_is(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given words that are cut for the table, then a law that has not changed is not written anew every 20 s."""
    monkeypatch.setattr(compared, "FOUND_MAX", 20)
    books.use("acme", 3)
    books.sql("UPDATE usage_rollup SET credits = 4")
    books.reconcile(client_ids=None, stripe=True, totals=None)
    assert note_compared(books.runtime) > 0
    assert len(stands(books, "L7 sums of the log").found) == 20
    assert note_compared(books.runtime) == 0


class Wrong:
    """A law whose check is itself wrong."""

    name = "L0 wrong"

    def check(self, runtime: Any, place: object) -> Slice:
        """Fail as nobody has thought of."""
        raise KeyError("unforeseen")


def test_a_check_that_is_itself_wrong_hides_no_other(books: Books, caplog: pytest.LogCaptureFixture) -> None:
    """Given a law whose check fails in an unforeseen way, then the next one is checked, and the log says why."""
    assert check_laws(books.runtime, laws=(Wrong(), Liveness())) == {"L9 liveness": 0}
    assert any(record.getMessage() == "billing: L0 wrong cannot be checked" for record in caplog.records)
