"""The sums of a receipt: each line counts where it belongs, once."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime, timedelta, timezone

from billing.admin.receipt_line import Reported
from billing.receipts.summary import Tally
from tests.receipts import FREE, LINE, written


def test_subtotals_count_each_line_where_it_belongs() -> None:
    """Given lines of two SKUs, three payers and two increments, then every sum is exact."""
    second = dataclasses.replace(
        LINE,
        sku="kib",
        unit="KiB",
        quantity=3,
        credits=6,
        grants={12: 6},
        reported=(
            Reported(increment_id=7, state="confirmed", credits=4),
            Reported(increment_id=8, state="pending", credits=2),
        ),
    )
    tally = Tally()
    for line in (LINE, second, FREE):
        tally.add(line)
    found = tally.summary()
    assert [(s.sku, s.unit, s.rows, s.quantity, s.credits) for s in found.by_sku] == [
        ("kib", "KiB", 2, 3, 6), ("page-capture", "page", 1, 9, 45)
    ]  # fmt: skip
    assert [(s.grant, s.rows, s.credits) for s in found.by_grant] == [(12, 2, 36), (15, 1, 10), (0, 1, 5)]
    assert [(s.increment_id, s.state, s.rows, s.credits) for s in found.by_increment] == [
        (7, "confirmed", 2, 44), (8, "pending", 1, 2)
    ]  # fmt: skip
    assert (found.unreported.rows, found.unreported.credits) == (1, 5)
    assert (found.total.rows, found.total.quantity, found.total.credits) == (3, 12, 51)


def test_days_corrections_and_dry_runs_have_sums_of_their_own() -> None:
    """Given lines of two days, one that corrects and one of a dry run, then each is counted, and is in the total."""
    back = dataclasses.replace(
        LINE, credits=-5, quantity=0, grants={12: -5}, corrects=LINE.run_id, corrects_line=0,
        occurred_at=LINE.occurred_at + timedelta(days=1), reported=(),
    )  # fmt: skip
    dry = dataclasses.replace(FREE, quantity=4, mode="dry_run")
    found = json.loads(written("json", [LINE, dry, back]))["subtotals"]
    assert [(day["day"], day["rows"], day["credits"]) for day in found["by_day"]] == [
        ("2026-11-21", 2, 45), ("2026-11-22", 1, -5)
    ]  # fmt: skip
    assert found["corrections"] == {"rows": 1, "quantity": 0, "credits": -5}
    assert found["dry_runs"] == {"rows": 1, "quantity": 4, "credits": 0}
    assert found["total"] == {"rows": 3, "quantity": 13, "credits": 40}
    text = written("html", [LINE, dry, back])
    assert "1 correction (-5 credits)" in text
    assert "1 line of dry runs (not charged)" in text


def test_a_day_is_utcs_whatever_zone_the_times_come_in() -> None:
    """Given a line of 23:30 UTC that the database's session shows in a zone ahead, then it counts on the UTC day."""
    late = dataclasses.replace(LINE, occurred_at=datetime(2026, 11, 22, 1, 30, tzinfo=timezone(timedelta(hours=2))))
    found = json.loads(written("json", [late]))["subtotals"]
    assert [day["day"] for day in found["by_day"]] == ["2026-11-21"]
