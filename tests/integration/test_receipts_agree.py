"""Four forms, one total: what each form's own text adds up to, the log, its sums, and what the bucket has spent."""

from __future__ import annotations

import csv
import html.parser
import io
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
import pytest

from billing import admin
from billing.core.clock import to_milliseconds
from billing.credits.values import Settlement
from billing.events.usage_event import UsageLine, encode_fragment
from billing.fulfillment import decoder
from billing.fulfillment.delivery import Delivered
from billing.fulfillment.log import UsageLog
from billing.fulfillment.selection import Selection
from tests.integration.consuming import usage_log
from tests.integration.recovering import Business, a_settlement
from tests.receipts import plan
from tests.terminal import Terminal
from tests.usage_events import delivered

pytestmark = [pytest.mark.integration, pytest.mark.slow]

RUNS = 300
PRICES = {"page": 5, "kib": 1, "search": 25}
START = datetime(2026, 10, 1, tzinfo=UTC)
DAYS = 20
CORRECTIONS = 7
SPAN = ("--from", "2026-10-01", "--to", "2026-11-01")

#: What a correction writes: a row that names the row it corrects, and the same in every sum of the log.
_CORRECT = """
    WITH wrong AS (
        SELECT * FROM usage_history WHERE client_id = 'acme' AND corrects IS NULL AND credits > 0
        ORDER BY run_id, line OFFSET %(offset)s LIMIT 1
    ), corrected AS (
        INSERT INTO usage_history (run_id, line, settlement_id, client_id, correlation_id, root_id, task, attempt, sku,
            quantity, credits, grants, epoch, price_version, occurred_at, corrects, corrects_line)
        SELECT %(run_id)s, 0, 'correction', client_id, correlation_id, root_id, task, 1, sku, -quantity, -credits,
            (SELECT jsonb_agg(jsonb_build_object('grant', share -> 'grant', 'credits', -(share -> 'credits')::bigint))
             FROM jsonb_array_elements(grants) AS share),
            epoch, price_version, occurred_at, run_id, line
        FROM wrong RETURNING *
    ), spent AS (
        UPDATE grant_spent SET credits = grant_spent.credits + share.credits
        FROM corrected, jsonb_to_recordset(grants) AS share ("grant" bigint, credits bigint)
        WHERE grant_spent.client_id = 'acme' AND grant_id = share."grant"
    )
    UPDATE usage_rollup SET credits = usage_rollup.credits + corrected.credits,
                            quantity = usage_rollup.quantity + corrected.quantity
    FROM corrected WHERE usage_rollup.client_id = 'acme' AND usage_rollup.sku = corrected.sku
        AND hour = date_trunc('hour', corrected.occurred_at, 'UTC')
"""


class Cells(html.parser.HTMLParser):
    """Reads the lines' cells and the subtotals' rows out of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.lines: list[dict[str, str]] = []
        self.sums: dict[str, dict[str, list[str]]] = {}
        self._cell = self._caption = self._row = ""
        self._tag = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note where the next text belongs."""
        self._tag = tag
        self._cell = dict(attrs).get("data-l") or "" if tag == "td" else self._cell
        if tag == "tr" and "id" in dict(attrs):
            self.lines.append({})
        if tag == "caption":
            self._caption = ""

    def handle_endtag(self, tag: str) -> None:
        """Leave a cell."""
        self._cell = "" if tag == "td" else self._cell
        self._tag = ""

    def handle_data(self, data: str) -> None:
        """Take a text."""
        if self._cell and self.lines:
            self.lines[-1][self._cell] = self.lines[-1].get(self._cell, "") + data
        elif self._tag == "caption":
            self._caption = data
        elif self._tag == "th":
            self._row = data
        elif self._tag == "td":
            self.sums.setdefault(self._caption, {}).setdefault(self._row, []).append(data)


def whole(text: str) -> int:
    """Read a number as people are shown it."""
    return int(text.strip().replace(",", ""))


def from_table(text: str) -> list[int]:
    """Return the credits of each line of a printed table: the numbers that end where the heading does."""
    body = text.splitlines()
    heading = next(place for place, line in enumerate(body) if line.rstrip().endswith("credits"))
    end = len(body[heading].rstrip())
    begin = next(place for place, line in enumerate(body) if "──" in line) + 1
    rows = itertools.takewhile(str.strip, body[begin:])
    # A row that needs several lines has its numbers on the first.
    return [whole(row[:end].split()[-1]) for row in rows if row[end - 1 : end].strip()]


def settle_much(business: Business, log: UsageLog) -> None:
    """Have acme settle runs of one to three SKUs, more than it has; log them as if done over twenty days."""
    seeded, batch = random.Random(8), list[Delivered]()
    for number in range(RUNS):
        skus = seeded.sample(sorted(PRICES), seeded.randint(1, 3))
        lines = [UsageLine(sku=sku, quantity=(q := seeded.randint(0, 4)), credits=q * PRICES[sku]) for sku in skus]
        told: Settlement = msgspec.structs.replace(
            a_settlement("acme", 0, f"task-{number}"),
            fragments=tuple(encode_fragment(line) for line in lines),
            amounts=tuple(line.credits for line in lines),
        )
        reply = business.runtime.buckets.settle(told)
        assert reply.event is not None
        event = decoder.decode(reply.event)
        at = START + timedelta(days=number % DAYS, seconds=seeded.randrange(86_400))
        batch.append(delivered(msgspec.structs.replace(event, occurred_at=to_milliseconds(at))))
    log.write(batch)


def test_every_form_adds_up_to_the_log_and_to_what_was_spent(
    business: Business, terminal: Terminal, session: psycopg.Connection[Any]
) -> None:
    """Given runs of three SKUs over twenty days, debt, increments and corrections, then there is one total everywhere.

    Per SKU, per day and per grant, too. The bucket's is that of a rebuild after the corrections.
    """
    for credits_ in (1_000, 700):
        admin.grant(business.settings, "acme", credits_, key=f"grant-{credits_}")
    for sku, price in PRICES.items():
        admin.set_price(business.settings, sku, price, unit=sku)
    log = usage_log(business.settings)
    settle_much(business, log)
    log.close()
    increment = plan(session, "acme", state="confirmed")
    for number in range(CORRECTIONS):
        run = f"ffffffff-ffff-7000-8000-{number:012}"
        session.execute(_CORRECT, {"offset": 23 * number, "run_id": run})
    business.lose()
    with business.consuming():
        assert business.rebuilder.step() == 1

    log_total = session.execute("SELECT count(*), sum(credits)::bigint FROM usage_history").fetchone()
    assert log_total is not None
    count, total = log_total
    assert session.execute("SELECT sum(credits)::bigint FROM usage_rollup").fetchone() == (total,)
    balance = business.balance("acme")
    assert total == balance.spent > 1_700, "more was settled than was granted"
    assert balance.debt > 0
    assert RUNS < count < 1_000

    forms = Forms(terminal)
    forms.check_lines(count, total)
    per_sku, per_day, per_grant = forms.check_sums(total)
    spent = session.execute("SELECT grant_id, credits FROM grant_spent WHERE client_id = 'acme'").fetchall()
    assert per_grant == dict(spent)
    stripe = forms.document["subtotals"]["by_increment"]
    assert [s["increment_id"] for s in stripe] == [increment]
    assert sum(s["credits"] for s in stripe) + forms.document["subtotals"]["unreported"]["credits"] == total

    october = Selection(start=START, end=datetime(2026, 11, 1, tzinfo=UTC))
    for by, expected in (("sku", per_sku), ("day", per_day)):
        found = admin.usage_by(business.settings, "acme", by, october)
        assert {str(group.name)[:10]: group.credits for group in found.groups} == expected
        assert found.total.credits == total


class Forms:
    """A receipt in its four forms, each read from its own text."""

    def __init__(self, terminal: Terminal) -> None:
        def typed(*form: str) -> str:
            answer = terminal.type("receipt", "acme", *SPAN, *form)
            assert answer.code == 0, answer
            return answer.out

        self.printed = typed()
        self.document = json.loads(typed("--json"))
        self.rows = list(csv.DictReader(io.StringIO(typed("--format", "csv"), newline="")))
        self.page = Cells(typed("--format", "html"))

    def check_lines(self, count: int, total: int) -> None:
        """Check that all forms have the same credits line by line."""
        in_json = [line["credits"] for line in self.document["lines"]]
        assert len(in_json) == count
        assert from_table(self.printed) == in_json
        assert [int(row["credits"]) for row in self.rows] == in_json
        assert [whole(line["Credits"]) for line in self.page.lines] == in_json
        assert sum(in_json) == total
        assert sum(1 for credits_ in in_json if credits_ < 0) == CORRECTIONS
        corrected = [line["corrects"] for line in self.document["lines"] if line["corrects"]]
        assert len(corrected) == CORRECTIONS
        assert [row["corrects"] for row in self.rows if row["corrects"]] == corrected
        assert [key for line in self.page.lines for key in corrected if f"corrects {key}" in line["Task"]] == corrected
        units = sum(int(row["quantity"]) for row in self.rows)
        assert f"{count:,} lines, {units:,} units, {total:,} credits in all" in self.printed
        assert f"corrections: {CORRECTIONS} lines, " in self.printed

    def check_sums(self, total: int) -> tuple[Counter[str], Counter[str], Counter[int]]:
        """Check all forms' subtotals against the lines of the CSV, which has none; return them."""
        per_sku, per_day, per_grant = Counter[str](), Counter[str](), Counter[int]()
        for row in self.rows:
            per_sku[row["sku"]] += int(row["credits"])
            per_day[row["occurred_at"][:10]] += int(row["credits"])
            for share in row["grants"].split():
                grant, _, credits_ = share.partition(":")
                per_grant[int(grant)] += int(credits_)
        sums = self.document["subtotals"]
        assert {s["sku"]: s["credits"] for s in sums["by_sku"]} == per_sku
        assert {s["day"]: s["credits"] for s in sums["by_day"]} == per_day
        assert {s["grant"]: s["credits"] for s in sums["by_grant"]} == per_grant
        assert len(per_day) == DAYS
        skus = {f"{sku} ({sku})": credits_ for sku, credits_ in per_sku.items()}
        days = {f"{datetime.fromisoformat(day).day} October 2026": credits_ for day, credits_ in per_day.items()}
        assert credits_of(self.page, "Per SKU") == {**skus, "All": total}
        assert credits_of(self.page, "Per day") == days
        assert sum(credits_of(self.page, "Who paid").values()) == total
        for name, credits_ in {**skus, **days}.items():
            assert re.search(rf"^ *{re.escape(name)} .* {credits_:,} *$", self.printed, re.MULTILINE), name
        return per_sku, per_day, per_grant


def credits_of(page: Cells, caption: str) -> Mapping[str, int]:
    """Return the credits of a page's subtotals."""
    return {name: whole(cells[-1]) for name, cells in page.sums[caption].items()}
