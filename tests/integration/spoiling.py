"""The ways in which one credit is changed by hand, in a bucket or in PostgreSQL, and what must then be found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.integration.reconciling import Books

#: What spoils the books: a name, what is done, then (law, text that is found) of each discrepancy.
Spoiled = tuple[Callable[[Books, int, int], object], list[tuple[str, str]]]

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
            ("L8 planned", "usage_rollup says 51 planned, the increments carry 52 credits"),
        ],
    ),
    "planned past the credits": (
        lambda books, *_: books.sql("UPDATE usage_rollup SET planned = 6 WHERE client_id = 'other'"),
        [
            ("L8 planned", "6 of 5 credits are planned"),
            ("L8 planned", "usage_rollup says 6 planned, the increments carry 0 credits"),
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
