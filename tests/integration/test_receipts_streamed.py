"""A receipt is streamed: one that is left half read leaves nothing behind, and a large one takes little memory."""

from __future__ import annotations

import csv
import json
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from billing import admin, receipts
from billing.core.settings import Settings
from billing.fulfillment.log import UsageLog
from tests.receipts import event, plan
from tests.usage_events import delivered

pytestmark = pytest.mark.integration

HOUR = datetime(2026, 10, 20, 14, tzinfo=UTC)
MONTH = (datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
#: Between two lines: a second, so that 3,600 fill an hour.
STEP = timedelta(seconds=1)


def test_a_receipt_that_is_left_half_read_leaves_its_connection_clean(
    settings: Settings, log: UsageLog, clients: Callable[..., None]
) -> None:
    """Given a reader who stops after one line, then the next receipts over the same connection are whole."""
    clients("acme")
    log.write([delivered(event(HOUR + number * STEP)) for number in range(2_500)])
    for _ in range(5):
        with admin.open_receipt(settings, "acme", *MONTH) as opened:
            next(opened.lines)
        lines = admin.receipt(settings, "acme", *MONTH)
        next(lines)
        lines.close()  # type: ignore[attr-defined]
    assert sum(1 for _ in admin.receipt(settings, "acme", *MONTH)) == 2_500


@pytest.mark.slow
def test_a_large_receipt_takes_little_memory(
    settings: Settings, session: psycopg.Connection[Any], log: UsageLog, clients: Callable[..., None], tmp_path: Path
) -> None:
    """Given 50,000 lines of 30 days, then each form is written whole with a peak of less than 3 MB."""
    clients("acme")
    step = timedelta(days=30) / 50_000
    for first in range(0, 50_000, 5_000):
        log.write([delivered(event(MONTH[0] + number * step)) for number in range(first, first + 5_000)])
        plan(session, "acme", number=first // 5_000)
    # What is imported and compiled once is no part of it.
    receipts.write_html(settings, "acme", tmp_path / "warm.html", MONTH[0], MONTH[0] + STEP)

    for name, write, share in (
        ("csv", receipts.write_csv, 1),
        ("html", receipts.write_html, 5),
        ("json", receipts.write_json, 5),
    ):
        # Watching memory is slow: a form that does not stream would hold megabytes after a fifth already.
        tracemalloc.start()
        written = write(settings, "acme", tmp_path / name, MONTH[0], MONTH[0] + 50_000 // share * step)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (written.lines, written.credits) == (50_000 // share, 500_000 // share)
        assert peak < 3 * 2**20, (name, peak)
        assert (tmp_path / name).stat().st_size > 4 * 2**20
    with (tmp_path / "csv").open(encoding="utf-8", newline="") as file:
        assert sum(int(row["credits"]) for row in csv.DictReader(file)) == 500_000
    document = json.loads((tmp_path / "json").read_text())
    assert document["subtotals"]["total"] == {"rows": 10_000, "quantity": 10_000, "credits": 100_000}
    assert [s["credits"] for s in document["subtotals"]["by_increment"]] == [50_000] * 2
