"""What a batch adds is summed in whole numbers and in the order of keys, so that no two consumers deadlock."""

from __future__ import annotations

import random

from billing.fulfillment import usage_rows
from tests.usage_events import paid_line, usage_event

HOUR = 3_600_000


def test_given_events_in_any_order_when_summed_then_keys_are_sorted_and_sums_exact() -> None:
    events = [
        usage_event("bolt", lines=[paid_line("page", 2, [(9, 2**53 - 1)])], occurred_at=5 * HOUR),
        usage_event("acme", lines=[paid_line("page", 1, [(2, 3), (1, 4)]), paid_line("kib", 8, [])], occurred_at=HOUR),
        usage_event("bolt", lines=[paid_line("page", 3, [(9, 2**53 - 1)])], occurred_at=6 * HOUR - 1),
    ]
    random.Random(3).shuffle(events)
    most = 2 * (2**53 - 1)
    assert usage_rows.rollups(events) == (
        ["acme", "acme", "bolt"],
        ["kib", "page", "page"],
        [HOUR, HOUR, 5 * HOUR],
        [0, 7, most],
        [8, 1, 5],
    )
    assert usage_rows.spent(events) == (["acme", "acme", "bolt"], [1, 2, 9], [4, 3, most])


def test_given_events_when_encoded_then_rows_are_in_the_order_of_their_keys() -> None:
    events = [usage_event(lines=[paid_line(), paid_line("kib")]) for _ in range(10)]
    rows = [row.split("\t")[:2] for row in usage_rows.copy_text(events).decode().splitlines()]
    assert rows == sorted([event.run_id.hex, str(line)] for event in events for line in (0, 1))


def test_given_special_characters_when_encoded_then_a_row_stays_one_line_of_its_columns() -> None:
    event = usage_event("a\\b", "one\ttwo\nthree\rfour\\N")
    (row,) = usage_rows.copy_text([event]).decode().split("\n")[:-1]
    assert len(row.split("\t")) == len(usage_rows.COLUMNS)
