"""The ways in which an increment, or what is kept of it elsewhere, is changed by hand, and what must then be found."""

from __future__ import annotations

from typing import Final

from tests.integration.spoiling import Spoiled

#: What an increment says of itself, or others of it, changed by hand; with nothing else amiss.
INCREMENT: Final[dict[str, Spoiled]] = {
    "units": (
        lambda books, *_: books.sql("UPDATE stripe_increment SET units = 53", owner=True),
        [
            ("L8 planned", "increment 1 has 53 units, its parts 52"),
            ("L8 planned", "usage_rollup says 52 planned, the increments carry 53 credits"),
        ],
    ),
    "credits of a unit": (
        lambda books, *_: books.sql("UPDATE stripe_increment SET units = 1, credits_per_unit = 52", owner=True),
        [("L8 planned", "increment 1 has 1 units of 52 credits, its parts 52; its meter counts another number")],
    ),
    "meter of another unit": (
        lambda books, *_: books.sql("INSERT INTO meter (event_name, credits_per_unit) VALUES ('billing_credits', 2)"),
        [("L8 planned", "its meter counts another number of credits as one unit")],
    ),
    "meter of another SKU": (
        lambda books, *_: (
            books.sql("INSERT INTO meter (event_name) VALUES ('pages')"),
            books.sql("INSERT INTO sku_meter VALUES ('page', 'pages', now() - interval '1 day')"),
        ),
        [("L8 planned", "it carries usage that another meter counts")],
    ),
    "hour that it carries from": (
        lambda books, *_: books.sql("UPDATE stripe_increment SET carries_from = period_start - interval '1 hour'"),
        [("L8 planned", "carries_from is not the first hour that it carries")],
    ),
    "generation": (
        lambda books, *_: books.sql("UPDATE stripe_increment SET generation = 2", owner=True),
        [("L8 planned", "stripe_generation does not end with its identifier")],
    ),
    "identifier": (
        lambda books, *_: books.sql("UPDATE stripe_increment SET identifier = 'b1-other'", owner=True),
        [("L8 planned", "stripe_generation does not end with its identifier")],
    ),
    "minute": (
        lambda books, *_: books.sql(
            "UPDATE stripe_increment SET event_at = event_at + interval '1 minute'", owner=True
        ),
        [("L8 planned", "stripe_generation does not end with its identifier")],
    ),
    "customer": (
        lambda books, *_: books.sql("UPDATE stripe_increment SET customer_id = 'cus_other'", owner=True),
        [("L8 planned", "stripe_generation does not end with its identifier")],
    ),
    "kind": (
        lambda books, *_: books.sql("UPDATE stripe_increment SET kind = 'invoice_item'", owner=True),
        [("L8 planned", "stripe_generation does not end with its identifier")],
    ),
    "generation gone": (
        lambda books, *_: (
            books.sql("UPDATE stripe_increment SET state = 'pending', first_attempt_at = NULL"),
            books.sql("UPDATE stripe_increment SET generation = 2, identifier = 'b1-2', reason = 'absent'"),
            books.sql("DELETE FROM stripe_generation WHERE generation = 1", owner=True),
        ),
        [("L8 planned", "stripe_generation does not end with its identifier")],
    ),
    "generation that never was": (
        lambda books, *_: books.sql(
            "INSERT INTO stripe_generation SELECT increment_id, 2, 'b1-2', kind, customer_id, period_start, period_end,"
            " event_at, 'absent' FROM stripe_increment"
        ),
        [("L8 planned", "stripe_generation does not end with its identifier")],
    ),
    "attempt": (
        lambda books, *_: books.sql("UPDATE stripe_increment SET attempts = 1"),
        [("L8 planned", "its attempts are not those of stripe_attempt")],
    ),
    "written off": (
        lambda books, *_: books.sql("UPDATE stripe_increment SET state = 'written_off'"),
        [("L8 planned", "it is written off, and nobody said why")],
    ),
    "resolution": (
        lambda books, *_: books.sql(
            "INSERT INTO stripe_resolution (increment_id, generation, resolved_as, was, reason)"
            " VALUES (1, 1, 'write-off', 'quarantined', 'agreed with the client')"
        ),
        [("L8 planned", "what a person said of it is not how it stands")],
    ),
    "resolution of a generation that never was": (
        lambda books, *_: books.sql(
            "INSERT INTO stripe_resolution (increment_id, generation, resolved_as, was, reason)"
            " VALUES (1, 2, 'confirmed', 'quarantined', 'seen')"
        ),
        [("L8 planned", "what a person said of it is not how it stands")],
    ),
    "parts of another SKU": (
        lambda books, *_: (
            books.sql("DELETE FROM stripe_increment_part WHERE sku <> 'page'", owner=True),
            books.sql("UPDATE stripe_increment_part SET credits_to = 51, sku = 'other'", owner=True),
        ),
        [
            ("L8 planned", "are planned, increments carry 0; 3 such rows"),
            ("L8 planned", "increment 1 has 52 units, its parts 51"),
        ],
    ),
}
