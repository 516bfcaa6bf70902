"""`billing partitions list|make|detach|attach` as a user types them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import psycopg
import pytest

from tests.integration.test_partitions import bound, month_after
from tests.terminal import Terminal

pytestmark = pytest.mark.integration


@pytest.fixture
def old_shop(shop: Terminal) -> tuple[Terminal, str]:
    """Open a shop that was migrated a year ago; return the month of a year ago, too."""
    first = month_after(datetime.now(UTC), -12)
    with psycopg.connect(shop.environment["BILLING_DATABASE_URL"], autocommit=True) as session:
        session.execute("DROP TABLE usage_history_early")
        months = "SELECT billing_make_usage_partition('usage_history_early', %s)"
        session.execute(months, [f"FROM (MINVALUE) TO ('{bound(first)}')"])
    answer = shop.type("partitions", "make", "--json").json()
    assert answer[0] == f"usage_history_{first:%Y_%m}"
    assert len(answer) == 11
    return shop, f"{first:%Y-%m}"


def test_months_are_listed_moved_and_moved_back(old_shop: tuple[Terminal, str]) -> None:
    """Given a month of a year ago, when detached twice and attached twice, then each time it is where it was wanted."""
    shop, month = old_shop
    listed = shop.type("partitions", "list", "--json").json()
    assert listed["missing"] == []
    assert [row["month"] for row in listed["partitions"]][:2] == ["early", month]
    last = listed["partitions"][-1]
    assert (last["month"], last["place"], last["from"], last["until"]) == ("legacy", "history", None, None)
    assert last["table"] == "public.usage_history_legacy"
    assert {row["place"] for row in listed["partitions"]} == {"history"}
    assert all(row["rows"] == 0 and row["rows_exact"] and row["bytes"] > 0 for row in listed["partitions"])

    for verb, place, schema in (("detach", "archive", "archive"), ("attach", "history", "public")):
        for _ in range(2):
            moved = shop.type("partitions", verb, month, "--json").json()
            assert (moved["month"], moved["place"]) == (month, place)
            assert moved["table"] == f"{schema}.usage_history_{month.replace('-', '_')}"
    assert f"{month} is in the archive: archive.usage_history_" in shop.type("partitions", "detach", month).out
    shown = shop.type("partitions", "list", "--exact")
    assert (shown.code, "archive" in shown.out, "early" in shown.out) == (0, True, True)
    assert "every month is there" in shop.type("partitions", "make").out


def test_a_missing_month_is_named_and_the_exit_code_says_so(old_shop: tuple[Terminal, str]) -> None:
    """Given a month that somebody dropped, then list fails, in both forms, until make has made it."""
    shop, month = old_shop
    with psycopg.connect(shop.environment["BILLING_DATABASE_URL"], autocommit=True) as session:
        session.execute(f"DROP TABLE usage_history_{month.replace('-', '_')}")
    shown = shop.type("partitions", "list")
    assert (shown.code, f"missing: {month}: its events wait; run: billing partitions make" in shown.out) == (1, True)
    listed = shop.type("partitions", "list", "--json")
    assert (listed.code, json.loads(listed.out)["missing"]) == (1, [month])
    assert f"made usage_history_{month.replace('-', '_')}" in shop.type("partitions", "make").out
    assert shop.type("partitions", "list").code == 0


def test_what_is_refused_is_one_line(shop: Terminal) -> None:
    """Given a month that may not be moved, then field, value and rule in one line, exit code 2, the books unchanged."""
    before = shop.books()
    now = datetime.now(UTC)
    month = f"{now:%Y-%m}"
    shop.type("partitions", "detach", month).refused(2, "month", month, "may be detached from", "90 days")
    for verb in ("detach", "attach"):
        shop.type("partitions", verb, "early").refused(2, "month", "'early'", "must be a month, as 2026-03")
        shop.type("partitions", verb, "2020-01").refused(2, "month", "'2020-01'", "is in neither place")
    assert shop.books() == before
