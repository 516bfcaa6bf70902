"""One credit changed by hand, in each book: reconciliation finds it and names law, client, grant and row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import pytest

from billing.core.settings import Settings
from tests.integration.reconciling import Books, books_on, broken, compared, texts

pytestmark = pytest.mark.integration

#: What spoils the books: a name, what is done, then (law, text that is found) of each discrepancy.
Spoiled = tuple[Callable[[Books, int, int], object], list[tuple[str, str]]]


@pytest.fixture
def books(database: Settings, redis_url: str) -> Iterator[Books]:
    """Open the books of a client with two grants, one used up, a hold and an increment; and of another client."""
    with books_on(database, redis_url) as opened:
        opened.client("acme", 50, 100)
        opened.use("acme", 40, 2)
        opened.use("acme", 10)
        opened.hold("acme", 30)
        opened.plan("acme")
        opened.client("other", 100)
        opened.use("other", 5)
        yield opened


BUCKET: Final[dict[str, Spoiled]] = {
    "available": (
        lambda books, _, grant: books.spoil_bucket("acme", f" {grant}:68:30:2", f" {grant}:69:30:2"),
        [("L2 bucket", "granted 100 is not available 69 + held 30 + spent 2"), ("L2 bucket", "granted 150 + owed 0")],
    ),
    "held": (
        lambda books, _, grant: books.spoil_bucket("acme", f" {grant}:68:30:2", f" {grant}:68:31:2"),
        [
            ("L2 bucket", "granted 100 is not available 68 + held 31 + spent 2"),
            ("L2 bucket", "granted 150 + owed 0 is not available 68 + held 31 + spent 52"),
            ("L2 holds", "the bucket holds 31, its 1 live holds were lent 30"),
        ],
    ),
    "held as available": (
        lambda books, _, grant: books.spoil_bucket("acme", f" {grant}:68:30:2", f" {grant}:69:29:2"),
        [("L2 holds", "the bucket holds 29, its 1 live holds were lent 30")],
    ),
    "spent as available": (
        lambda books, _, grant: books.spoil_bucket("acme", f" {grant}:68:30:2", f" {grant}:69:30:1"),
        [("L2 spent", "spent: Redis says 1, the log's grant_spent says 2")],
    ),
    "available as spent": (
        lambda books, _, grant: books.spoil_bucket("acme", f" {grant}:68:30:2", f" {grant}:67:30:3"),
        [("L2 spent", "spent: Redis says 3, the log's grant_spent says 2")],
    ),
    "granted": (
        lambda books, _, grant: books.spoil_grants("acme", f"g:{grant}", 1),
        [
            ("L2 bucket", "granted 101 is not available 68 + held 30 + spent 2"),
            ("L2 bucket", "granted 151 + owed 0 is not available 68"),
            ("L2 grants", "Redis says 101, credit_grant says 100"),
        ],
    ),
    "debt beyond a grant": (
        lambda books, _, grant: books.spoil_grants("acme", f"m:{grant}", 1),
        [
            ("L2 spent", "debt: Redis says -1, the log's grant_spent says 0"),
            ("L2 spent", "spent: Redis says 3, the log's grant_spent says 2"),
        ],
    ),
    "debt": (
        lambda books, *_: books.spoil_grants("acme", "s:0", 1),
        [
            ("L2 bucket", "granted 150 + owed 0 is not available 68 + held 30 + spent 53"),
            ("L2 spent", "debt: Redis says 1, the log's grant_spent says 0"),
        ],
    ),
}

DATABASE: Final[dict[str, Spoiled]] = {
    "rollup": (
        lambda books, *_: books.sql("UPDATE usage_rollup SET credits = 51 WHERE client_id = 'acme' AND sku = 'page'"),
        [
            ("L7 sums of the log", "the log has 50 credits for 2, usage_rollup 51 for 2"),
            ("L8 planned", "planned 52 + not planned 1 is not the log's 52"),
        ],
    ),
    "rollup's quantity": (
        lambda books, *_: books.sql("UPDATE usage_rollup SET quantity = 3 WHERE client_id = 'acme' AND sku = 'page'"),
        [("L7 sums of the log", "the log has 50 credits for 2, usage_rollup 50 for 3")],
    ),
    "rollup gone": (
        lambda books, *_: books.sql("DELETE FROM usage_rollup WHERE client_id = 'other'"),
        [
            ("L7 sums of the log", "the log has 5 credits for 1, usage_rollup nothing for nothing"),
            ("L8 planned", "planned 0 + not planned 0 is not the log's 5"),
        ],
    ),
    "planned": (
        lambda books, *_: books.sql("UPDATE usage_rollup SET planned = 49 WHERE client_id = 'acme' AND sku = 'page'"),
        [
            ("L8 planned", "page in the hour "),
            ("L8 planned", "usage_rollup says 51 planned, the increments have 52 units"),
        ],
    ),
    "planned past the credits": (
        lambda books, *_: books.sql("UPDATE usage_rollup SET planned = 6 WHERE client_id = 'other'"),
        [
            ("L8 planned", "6 of 5 credits are planned"),
            ("L8 planned", "usage_rollup says 6 planned, the increments have 0 units"),
        ],
    ),
    "part": (
        lambda books, *_: books.sql(
            "UPDATE stripe_increment_part SET credits_to = credits_to + 1 WHERE sku = 'page'", owner=True
        ),
        [
            ("L8 planned", "50 are planned, increments carry 51 (increments 1)"),
            ("L8 planned", "increment 1 has 52 units, its parts 53"),
        ],
    ),
    "part that overlaps": (
        lambda books, *_: books.sql(
            "UPDATE stripe_increment_part SET credits_from = 1, credits_to = credits_to + 1 WHERE sku = 'page'",
            owner=True,
        ),
        [("L8 planned", "the parts of its increments overlap or leave a gap (increments 1)")],
    ),
    "part of another month": (
        lambda books, *_: books.sql(
            "UPDATE stripe_increment SET period_start = period_end, period_end = period_end + interval '1 month'",
            owner=True,
        ),
        [("L8 planned", "increment 1 has 52 units, its parts 52; 2 parts are of hours outside its period")],
    ),
    "grant_spent": (
        lambda books, _, grant: books.sql("UPDATE grant_spent SET credits = 3 WHERE grant_id = %s", grant),
        [
            ("L2 spent", "spent: Redis says 2, the log's grant_spent says 3"),
            ("L7 sums of the log", "the log's lines say 2, grant_spent says 3"),
        ],
    ),
    "grant_spent of a used-up grant": (
        lambda books, grant, _: books.sql("UPDATE grant_spent SET credits = 51 WHERE grant_id = %s", grant),
        [
            ("L2 spent", "spent: Redis says 50, the log's grant_spent says 51"),
            ("L7 sums of the log", "the log's lines say 50, grant_spent says 51"),
        ],
    ),
    "posting": (
        lambda books, _, grant: books.sql("INSERT INTO posting VALUES ('acme', 1, %s, -4, 0, 1, 1)", grant),
        [("L2 spent", "spent: Redis says 2, the log's grant_spent says 2, -4 of it not posted yet")],
    ),
    "ledger_entry": (
        lambda books, _, grant: books.sql(
            "UPDATE ledger_entry SET credits = 99 WHERE grant_id = %s", grant, owner=True
        ),
        [("L2 grants", "credit_grant says 100, 1 ledger entries say 99")],
    ),
    "ledger_entry twice": (
        lambda books, _, grant: books.sql(
            "INSERT INTO ledger_entry (client_id, grant_id, kind, credits, reason) VALUES ('acme', %s, 'grant', 1, '')",
            grant,
        ),
        [("L2 grants", "credit_grant says 100, 2 ledger entries say 101")],
    ),
    "credit_grant": (
        lambda books, _, grant: books.sql("UPDATE credit_grant SET credits = 101 WHERE grant_id = %s", grant),
        [
            ("L2 grants", "credit_grant says 101, 1 ledger entries say 100"),
            ("L2 grants", "Redis says 100, credit_grant says 101"),
        ],
    ),
    "line of the log gone": (
        lambda books, *_: books.sql("DELETE FROM usage_history WHERE client_id = 'acme' AND line = 0", owner=True),
        [
            ("L3 one charge", "has 1 lines, numbered from 1 to 1"),
            ("L7 sums of the log", "the log has nothing credits for nothing, usage_rollup 50 for 2"),
            ("L7 sums of the log", "the log's lines say"),
            ("L8 planned", "is not the log's"),
        ],
    ),
    "credit of a line": (
        lambda books, *_: books.sql("UPDATE usage_history SET credits = 41 WHERE credits = 40", owner=True),
        [
            ("L7 sums of the log", "the log has 51 credits for 2, usage_rollup 50 for 2"),
            ("L7 sums of the log", "/0 of the log cost 41, its grants paid 40"),
            ("L8 planned", "is not the log's 53"),
        ],
    ),
    "credit of one line for another's": (
        lambda books, *_: books.sql(
            "UPDATE usage_history SET credits = CASE credits WHEN 40 THEN 41 ELSE 9 END"
            " WHERE client_id = 'acme' AND sku = 'page'",
            owner=True,
        ),
        [("L7 sums of the log", "; 2 such lines")],
    ),
    "what a grant paid for a line": (
        lambda books, *_: books.sql(
            "UPDATE usage_history SET grants = jsonb_set(grants, '{0,credits}', '6') WHERE client_id = 'other'",
            owner=True,
        ),
        [
            ("L7 sums of the log", "the log's lines say 6, grant_spent says 5"),
            ("L7 sums of the log", "/0 of the log cost 5, its grants paid 6"),
        ],
    ),
    "line of another settlement": (
        lambda books, *_: books.sql("UPDATE usage_history SET settlement_id = 'x' WHERE line = 1", owner=True),
        [("L3 one charge", "of more than one settlement")],
    ),
    "line of another client": (
        lambda books, *_: books.sql("UPDATE usage_history SET client_id = 'other' WHERE line = 1", owner=True),
        [
            ("L3 one charge", "has 1 lines, numbered from 1 to 1"),
            ("L7 sums of the log", "extra-1 in the hour"),
            ("L8 planned", "is not the log's"),
        ],
    ),
}


@pytest.mark.parametrize("name", [*BUCKET, *DATABASE])
def test_given_one_credit_changed_by_hand_when_reconciled_then_it_is_found_and_named(books: Books, name: str) -> None:
    """L2, L3, L8: clean before, broken after, and nothing else is blamed."""
    spoil, expected = (BUCKET | DATABASE)[name]
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
