"""A receipt says of each line on which invoice it is: its own period's, a later one, a line of its own, or none."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from billing import admin
from billing.core.settings import Settings
from tests.integration.invoicing import Invoicing, invoicing_on

pytestmark = pytest.mark.integration

#: A period that begins half past an hour.
TURN = (datetime.now(UTC) - timedelta(days=5)).replace(minute=30, second=12, microsecond=0)
HOUR = TURN.replace(minute=0, second=0)
PRESENT = (TURN, TURN + timedelta(days=30))
EARLIER = (TURN - timedelta(days=30), TURN)
LATE = HOUR - timedelta(hours=3)


@pytest.fixture
def books(database: Settings) -> Iterator[Invoicing]:
    """Open books with a linked client."""
    with invoicing_on(database) as opened:
        opened.client("acme", "cus_acme")
        yield opened


def reporting(books: Invoicing, start: datetime, end: datetime) -> list[str]:
    """Return what the lines of a span say of their report."""
    return [line.reporting for line in admin.receipt(books.settings, "acme", start, end)]


def test_given_late_usage_then_its_line_names_the_invoice_that_has_it(books: Invoicing) -> None:
    """Whether the receipt ends before that invoice's period or within it."""
    books.use("acme", 3, LATE)
    books.use("acme", 5, TURN + timedelta(minutes=5))
    number = books.increment("acme", PRESENT, {("page", LATE): (0, 3), ("page", HOUR): (0, 4)})
    late = f"#{number} confirmed (on the invoice from {TURN:%Y-%m-%d})"

    assert reporting(books, LATE, LATE + timedelta(hours=1)) == [late]
    assert reporting(books, LATE, PRESENT[1]) == [late, f"#{number} confirmed, 1 not yet reported"]


def test_given_an_invoice_item_and_what_is_written_off_then_lines_say_so(books: Invoicing) -> None:
    books.use("acme", 3, LATE)
    item = books.increment("acme", EARLIER, {("page", LATE): (0, 1)}, kind="invoice_item", state="sent")
    off = books.increment("acme", EARLIER, {("page", LATE): (1, 3)}, state="written_off")

    expected = f"#{item} sent (a line of its own), #{off} written off"
    assert reporting(books, LATE, PRESENT[1]) == [expected]
    (line,) = admin.receipt(books.settings, "acme", LATE, PRESENT[1])
    assert [(part.state, part.credits, part.billed) for part in line.reported] == [
        ("sent", 1, "a line of its own"),
        ("written_off", 2, ""),
    ]


def test_given_a_receipt_that_ends_in_the_hour_in_which_a_period_begins_then_its_lines_are_reported(
    books: Invoicing,
) -> None:
    """Usage right before the anchor is of the period that begins in its hour, seen alone or with what follows."""
    books.use("acme", 3, HOUR + timedelta(minutes=10))
    books.use("acme", 5, HOUR + timedelta(minutes=50))
    number = books.increment("acme", PRESENT, {("page", HOUR): (0, 8)})

    own = f"#{number} confirmed"
    assert reporting(books, HOUR, HOUR + timedelta(minutes=20)) == [own]
    assert reporting(books, HOUR, PRESENT[1]) == [own, own]
