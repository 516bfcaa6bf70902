"""Receipts against the books: every line once, its increment the right one, its sums those of the log."""

from __future__ import annotations

import json
import random
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from billing import admin, receipts
from billing.core.clock import from_milliseconds, to_milliseconds
from billing.core.errors import InvalidValue, UnknownClient
from billing.core.settings import Settings
from billing.fulfillment.log import UsageLog
from billing.receipts.summary import Tally
from tests.receipts import event, plan
from tests.usage_events import delivered, paid_line, usage_event

pytestmark = pytest.mark.integration

HOUR = datetime(2026, 10, 20, 14, tzinfo=UTC)
MONTH = (datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
#: Between two lines: a second, so that 3,600 fill an hour.
STEP = timedelta(seconds=1)


def totals(session: psycopg.Connection[Any], statement: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    return session.execute(statement).fetchall()


def test_subtotals_are_those_of_the_log_and_of_the_rollups(
    settings: Settings, session: psycopg.Connection[Any], log: UsageLog, clients: Callable[..., None]
) -> None:
    """Given usage over two months, then the receipt of one adds up to the log's and the rollups' sums, per SKU."""
    clients("acme", "bolt")
    seeded = random.Random(7)
    written = []
    for number in range(400):
        at = MONTH[0] + timedelta(minutes=seeded.randrange(60 * 24 * 45))
        lines = [
            paid_line(
                sku, seeded.randint(0, 4), [(seeded.randint(0, 3), seeded.randint(1, 9)), (5, seeded.randint(0, 9))]
            )
            for sku in seeded.sample(("page", "kib", "search"), seeded.randint(1, 3))
        ]
        milliseconds = to_milliseconds(at)
        client = "acme" if number % 4 else "bolt"
        written.append(usage_event(client, lines=lines, occurred_at=milliseconds, at_milliseconds=milliseconds))
    log.write([delivered(made) for made in written])

    tally = Tally()
    lines_ = list(tally.counting(admin.receipt(settings, "acme", *MONTH)))
    summary = tally.summary()

    per_sku = totals(
        session,
        "SELECT sku, count(*), sum(quantity)::bigint, sum(credits)::bigint FROM usage_history WHERE client_id = 'acme'"
        " AND occurred_at >= '2026-10-01Z' AND occurred_at < '2026-11-01Z' GROUP BY 1 ORDER BY 1",
    )
    rolled_up = totals(
        session,
        "SELECT sku, sum(quantity)::bigint, sum(credits)::bigint FROM usage_rollup WHERE client_id = 'acme'"
        " AND hour >= '2026-10-01Z' AND hour < '2026-11-01Z' GROUP BY 1 ORDER BY 1",
    )
    assert [(s.sku, s.rows, s.quantity, s.credits) for s in summary.by_sku] == per_sku
    assert [(s.sku, s.quantity, s.credits) for s in summary.by_sku] == rolled_up
    wanted = [
        (e.run_id, number, line)
        for e in written
        for number, line in enumerate(e.lines)
        if e.client_id == "acme" and from_milliseconds(e.occurred_at) < MONTH[1]
    ]
    assert len(wanted) > 300
    assert Counter((line.run_id, line.line) for line in lines_) == Counter((run, n) for run, n, _ in wanted)
    paid: Counter[int] = Counter()
    for _, _, line in wanted:
        for share in line.grants:
            paid[share.grant] += share.credits
    assert {s.grant: s.credits for s in summary.by_grant} == paid
    assert summary.total.credits == sum(s.credits for s in summary.by_grant) == summary.unreported.credits
    order = [(line.occurred_at, line.run_id, line.line) for line in lines_]
    assert order == sorted(order)


def test_every_line_names_exactly_the_increment_that_carries_it(
    settings: Settings, session: psycopg.Connection[Any], log: UsageLog, clients: Callable[..., None]
) -> None:
    """Given three plans in one hour, and later usage with earlier times, then each line names its own batch's plan."""
    clients("acme", "bolt")
    seeded = random.Random(3)
    expected: dict[uuid.UUID, int | None] = {}
    increments: list[int | None] = []
    for number in range(4):
        batch = [
            # Whole batches are mixed in time: what counts is when a row was recorded, not when its work ended.
            event(
                HOUR + timedelta(milliseconds=seeded.randrange(3_600_000)),
                [(1, seeded.randint(1, 50))],
                sku=seeded.choice(("page", "kib")),
            )
            for _ in range(50)
        ]
        log.write([delivered(made) for made in [*batch, usage_event("bolt")]])
        made = plan(session, "acme", state="confirmed", number=number) if number < 3 else None
        increments.append(made)
        expected |= {one.run_id: made for one in batch}

    lines = list(admin.receipt(settings, "acme", *MONTH))

    assert len(lines) == 200
    for line in lines:
        carried = expected[line.run_id]
        assert [part.increment_id for part in line.reported] == ([] if carried is None else [carried])
        assert line.unreported == (line.credits if carried is None else 0)
    assert {line.reporting for line in lines} == {"not yet reported", *(f"#{i} confirmed" for i in increments if i)}
    units = totals(session, "SELECT increment_id, units FROM stripe_increment WHERE client_id = 'acme' ORDER BY 1")
    tally = Tally()
    for line in lines:
        tally.add(line)
    assert [(s.increment_id, s.credits) for s in tally.summary().by_increment] == units


def test_a_window_that_cuts_an_hour_names_the_same_increments_as_the_whole(
    settings: Settings, session: psycopg.Connection[Any], log: UsageLog, clients: Callable[..., None]
) -> None:
    """Given any cut, then its lines are those of the month within it: the first instant counts, the last does not."""
    clients("acme")
    for number in range(3):
        log.write([delivered(event(HOUR + (3 * place + number) * STEP, [(1, place + 1)])) for place in range(40)])
        if number < 2:
            plan(session, "acme", number=number)
    whole = list(admin.receipt(settings, "acme", *MONTH))
    assert len(whole) == 120

    cuts = [(HOUR + 17 * STEP, HOUR + 71 * STEP), (HOUR, HOUR + STEP), (HOUR + 119 * STEP, HOUR + 120 * STEP)]
    cuts.append((HOUR + STEP / 2, HOUR + STEP))
    for start, end in cuts:
        cut = list(admin.receipt(settings, "acme", start, end))
        assert cut == [line for line in whole if start <= line.occurred_at < end]
    found = [len(list(admin.receipt(settings, "acme", *cut))) for cut in cuts]
    assert found == [54, 1, 1, 0]


def test_a_line_that_straddles_two_parts_names_both_and_what_waits(
    settings: Settings, session: psycopg.Connection[Any], log: UsageLog, clients: Callable[..., None]
) -> None:
    """Given parts that end within a line, then the line says how much each carries; 0 credits have no report."""
    clients("acme")
    log.write([delivered(event(HOUR, [(1, 10)])), delivered(event(HOUR + STEP, [(1, 0)]))])
    for number, until in enumerate((4, 9)):
        session.execute("UPDATE usage_rollup SET credits = %s", [until])  # as if it had been read half way
        plan(session, "acme", state=("sent", "pending")[number], number=number)
    session.execute("UPDATE usage_rollup SET credits = 10")

    line, free = admin.receipt(settings, "acme", *MONTH)

    assert [(part.state, part.credits) for part in line.reported] == [("sent", 4), ("pending", 5)]
    assert line.unreported == 1
    first, second = (part.increment_id for part in line.reported)
    assert line.reporting == f"#{first} sent, #{second} pending, 1 not yet reported"
    assert free.reporting == "nothing to report"


def test_a_line_says_its_price_its_payers_and_what_it_corrects(
    settings: Settings, session: psycopg.Connection[Any], log: UsageLog, clients: Callable[..., None]
) -> None:
    """Given a price and a correction, then the lines show unit, price, grants, and the corrected line by its name."""
    clients("acme")
    session.execute(
        "INSERT INTO price (sku, version, credits_per_unit, unit, effective_at)"
        " VALUES ('page', 1, 5, 'page', '2026-01-01')"
    )
    milliseconds = to_milliseconds(HOUR)
    charged = usage_event(
        lines=[paid_line("page", 3, [(4, 9), (0, 6)])], occurred_at=milliseconds, at_milliseconds=milliseconds
    )
    log.write([delivered(charged)])
    plan(session, "acme", state="confirmed")
    session.execute(
        "INSERT INTO usage_history (run_id, line, settlement_id, client_id, correlation_id, root_id, task, attempt,"
        " sku, quantity, credits, grants, epoch, price_version, occurred_at, corrects, corrects_line)"
        " SELECT %s, 0, 'correction', client_id, correlation_id, root_id, task, 1, sku, -1, -5,"
        """ '[{"grant": 4, "credits": -5}]', epoch, price_version, occurred_at + interval '1 second', run_id, line"""
        " FROM usage_history",
        [event(HOUR).run_id],
    )

    line, correction = admin.receipt(settings, "acme", *MONTH)

    assert (line.unit, line.quantity, line.credits_per_unit, line.credits) == ("page", 3, 5, 15)
    assert (dict(line.grants), line.price_version, line.corrected) == ({4: 9, 0: 6}, 1, "")
    assert (correction.quantity, correction.credits_per_unit, correction.credits) == (-1, 5, -5)
    assert dict(correction.grants) == {4: -5}
    assert correction.corrected == f"{charged.run_id}/0"
    # The increment carried 15; of the correction Stripe knows nothing yet.
    assert [part.credits for part in (*line.reported, *correction.reported)] == [15]
    assert (line.unreported, correction.unreported) == (0, -5)


def test_a_receipt_without_usage_is_a_receipt(settings: Settings, clients: Callable[..., None], tmp_path: Path) -> None:
    """Given a client that used nothing, then there is an empty receipt; an unknown client has none, nor a file."""
    clients("acme")
    for write in (receipts.write_html, receipts.write_csv, receipts.write_json):
        written = write(settings, "acme", tmp_path / "receipt", *MONTH)
        assert (written.lines, written.credits) == (0, 0)
    assert json.loads((tmp_path / "receipt").read_text())["lines"] == []

    (tmp_path / "receipt").unlink()
    with pytest.raises(UnknownClient):
        receipts.write_html(settings, "nobody", tmp_path / "receipt")
    with pytest.raises(InvalidValue, match=r"^from: "):
        receipts.write_html(settings, "acme", tmp_path / "receipt", MONTH[1], MONTH[0])
    assert list(tmp_path.iterdir()) == []


def test_lines_are_of_one_instant(
    settings: Settings, session: psycopg.Connection[Any], log: UsageLog, clients: Callable[..., None]
) -> None:
    """Given usage and a plan that come while a receipt is read, then the receipt has neither."""
    clients("acme")
    log.write([delivered(event(HOUR + number * timedelta(days=1))) for number in range(3)])

    with admin.open_receipt(settings, "acme", *MONTH) as opened:
        first = next(opened.lines)
        log.write([delivered(event(HOUR + timedelta(days=2, minutes=1)))])
        plan(session, "acme")
        rest = list(opened.lines)

    assert [line.occurred_at.day for line in (first, *rest)] == [20, 21, 22]
    assert {line.reporting for line in rest} == {"not yet reported"}
    assert len(list(admin.receipt(settings, "acme", *MONTH))) == 4
