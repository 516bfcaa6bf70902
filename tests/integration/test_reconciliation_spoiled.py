"""One credit changed by hand, in each book: reconciliation finds it and names law, client, grant and row."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from billing.core.settings import Settings
from tests.integration.reconciling import Books, books_on, broken, compared, texts
from tests.integration.spoiling import BUCKET, DATABASE
from tests.integration.spoiling_increments import INCREMENT
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def books(database: Settings, redis_url: str) -> Iterator[Books]:
    """Open the books of a client with two grants, one used up, a hold and an increment; and of another client."""
    # What is used stands in one hour of the rollups, whose sums the tests name.
    wait_until(lambda: datetime.now(UTC).strftime("%M:%S") < "59:30", "the hour is not about to end")
    with books_on(database, redis_url) as opened:
        opened.client("acme", 50, 100)
        opened.use("acme", 40, 2)
        opened.use("acme", 10)
        opened.hold("acme", 30)
        opened.plan("acme")
        opened.client("other", 100)
        opened.use("other", 5)
        yield opened


@pytest.mark.parametrize("name", [*BUCKET, *DATABASE, *INCREMENT])
def test_given_one_credit_changed_by_hand_when_reconciled_then_it_is_found_and_named(books: Books, name: str) -> None:
    """L2, L3, L8: clean before, broken after, and nothing else is blamed."""
    spoil, expected = (BUCKET | DATABASE | INCREMENT)[name]
    assert books.reconcile().ok
    used_up, other = books.grant_ids("acme")

    spoil(books, used_up, other)
    report = books.reconcile()

    assert not report.ok
    assert {law for law, _, _ in broken(report)} == {law for law, _ in expected}, report.discrepancies
    for law, text in expected:
        assert text in texts(report, law), (law, text, report.discrepancies)
    assert {client for _, client, _ in broken(report)} <= {"acme", "other"}


def test_given_a_difference_when_reconciled_then_client_grant_and_row_are_named(books: Books) -> None:
    _, grant = books.grant_ids("acme")
    books.sql("UPDATE grant_spent SET credits = 3 WHERE grant_id = %s", grant)

    report = books.reconcile()

    assert broken(report) == [("L2 spent", "acme", grant), ("L7 sums of the log", "acme", grant)]
    (row,) = next(found.rows for found in report.discrepancies if found.law == "L7 sums of the log")
    assert row == {"table": "grant_spent", "client_id": "acme", "grant_id": grant, "credits": 3}


def test_given_a_line_that_its_grants_did_not_pay_when_reconciled_then_it_is_named(books: Books) -> None:
    """L7: the line itself, also where the sums hide it because another line has what it lacks."""
    books.sql(
        "UPDATE usage_history SET credits = CASE credits WHEN 40 THEN 41 ELSE 9 END"
        " WHERE client_id = 'acme' AND sku = 'page'",
        owner=True,
    )

    (found,) = books.reconcile().discrepancies

    named = [(row["table"], row["line"], row["credits"], row["paid by grants"]) for row in found.rows]
    assert sorted(named) == [("usage_history", 0, 9, 10), ("usage_history", 0, 41, 40)]
    runs = books.sql("SELECT run_id::text FROM usage_history WHERE client_id = 'acme' AND sku = 'page' ORDER BY 1")
    assert [row["run_id"] for row in found.rows] == [run for (run,) in runs]


def test_given_more_rows_that_differ_than_are_named_when_reconciled_then_it_says_so(books: Books) -> None:
    """L9: twenty rows are named; that there are more is said."""
    books.sql(
        "INSERT INTO usage_rollup (client_id, sku, hour, credits, quantity)"
        " SELECT 'other', 'page', timestamptz '2026-01-01 00:00Z' + n * interval '1 hour', 1, 1"
        " FROM generate_series(1, 25) AS n"
    )

    report = books.reconcile()

    assert texts(report, "L7 sums of the log").endswith("; 20 such rows or more")
    (found,) = [found for found in report.discrepancies if found.law == "L7 sums of the log"]
    assert len(found.rows) == 20


def test_given_a_hold_without_its_run_when_reconciled_then_its_credits_are_missed(books: Books) -> None:
    """L2, L5: credits that a bucket holds for a run that is gone come back to nobody."""
    hold = books.hold("other", 7)
    assert books.reconcile().ok

    books.forget_run(hold)
    report = books.reconcile()

    assert broken(report) == [("L2 holds", "other", books.grant_ids("other")[0])]
    assert texts(report, "L2 holds") == "the bucket holds 7, its 0 live holds were lent 0"


def test_given_a_hold_long_past_its_deadline_when_reconciled_then_its_client_is_named(books: Books) -> None:
    """L5: a hold whose worker died is resolved within its lease and a sweep, unless nobody sweeps."""
    hold = books.hold("other", 7)
    keys = books._keys("other")
    books.redis.zadd(keys.leases, {hold.run_id.hex: 1_000})

    report = books.reconcile()

    assert broken(report) == [("L5 no orphan", "other", None)]


def test_given_a_bucket_that_billing_did_not_write_when_reconciled_then_it_is_named(books: Books) -> None:
    books.redis.set(books._keys("other").bucket + "other", "rubbish and more")

    report = books.reconcile()

    assert broken(report) == [("L2 bucket", "other", None)]
    assert "rubbish" in texts(report, "L2 bucket")
    (spent,) = [law for law in report.laws if law.law == "L2 spent"]
    assert spent.compared["clients"] == 1


@pytest.mark.parametrize("part", ["bucket", "grants"])
def test_given_a_key_of_another_type_when_reconciled_then_only_its_client_is_named(books: Books, part: str) -> None:
    """L10: what was put under one client's key leaves the others compared."""
    key = getattr(books._keys("other"), part) + "other"
    books.redis.delete(key)
    books.redis.sadd(key, "rubbish")

    report = books.reconcile()

    assert broken(report) == [("L2 bucket", "other", None)]
    assert "another type" in texts(report, "L2 bucket")
    assert compared(report, "L2 spent")["clients"] == 1
