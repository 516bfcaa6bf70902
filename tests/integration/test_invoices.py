"""L8 per client, meter and period: every credit of the log is in one place, whatever became of it; Stripe beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from billing.core.errors import UnknownClient, Unreachable
from billing.core.settings import Settings
from tests.integration.invoicing import METER, Invoicing, invoicing_on, told

pytestmark = pytest.mark.integration

NOW = datetime.now(UTC)
#: The hours of a period that began half past an hour some days ago, and of the one before it.
TURN = (NOW - timedelta(days=5)).replace(minute=30, second=12, microsecond=0)
BEFORE, NEXT = TURN - timedelta(days=10), TURN + timedelta(days=10)
EARLIER, PRESENT = (BEFORE, TURN), (TURN, NEXT)
TURN_HOUR = TURN.replace(minute=0, second=0)
OLD, NEW = TURN_HOUR - timedelta(hours=1), TURN_HOUR
#: Every number of a row that counts credits.
CREDITS = ("planned", "in_flight", "confirmed", "quarantined", "carried", "written_off", "unplanned")


@pytest.fixture
def books(database: Settings) -> Iterator[Invoicing]:
    """Open books with a linked client."""
    with invoicing_on(database) as opened:
        opened.client("acme", "cus_acme")
        yield opened


def minute(hour: datetime) -> datetime:
    """Return an instant within an hour."""
    return hour + timedelta(minutes=40)


@pytest.mark.parametrize(
    ("state", "column"),
    [
        ("pending", "planned"),
        ("sending", "in_flight"),
        ("sent", "in_flight"),
        ("ambiguous", "in_flight"),
        ("confirmed", "confirmed"),
        ("rejected", "quarantined"),
        ("quarantined", "quarantined"),
        ("written_off", "written_off"),
    ],
)
def test_given_an_increment_of_any_state_then_its_credits_are_in_one_column(
    books: Invoicing, state: str, column: str
) -> None:
    """Given 30 credits used and 20 of them in an increment, then 10 wait for a plan."""
    books.use("acme", 30, minute(NEW))
    books.increment("acme", PRESENT, {("page", NEW): (0, 20)}, state=state)

    (row,) = books.rows()

    assert (row.period_start, row.period_end, row.is_known) == (*PRESENT, True)
    assert told(row, "log", "rollup", "missing", *CREDITS) == (
        *(30, 30, 0),
        *(20 if name == column else 10 if name == "unplanned" else 0 for name in CREDITS),
    )
    assert not row.differs


def test_given_an_anchor_within_an_hour_then_the_hour_is_of_the_period_that_begins_in_it(books: Invoicing) -> None:
    """Given usage right before and right after the hour of the turn, then each is of its own period."""
    books.use("acme", 3, minute(OLD))
    books.use("acme", 4, TURN - timedelta(minutes=20))
    books.increment("acme", EARLIER, {("page", OLD): (0, 3)})
    books.increment("acme", PRESENT, {("page", NEW): (0, 4)}, state="sent")

    assert [told(row, "log", "confirmed", "in_flight", "carried") for row in books.rows()] == [
        (3, 3, 0, 0),
        (4, 0, 4, 0),
    ]


def test_given_late_usage_that_a_later_invoice_has_then_it_is_carried_where_it_was_used(books: Invoicing) -> None:
    """Given usage of a closed period in the next one's increment, then both periods add up, and nothing is twice."""
    books.use("acme", 3, minute(OLD))
    books.use("acme", 5, minute(NEW))
    books.increment("acme", EARLIER, {("page", OLD): (0, 1)})
    books.increment("acme", PRESENT, {("page", OLD): (1, 3), ("page", NEW): (0, 5)})

    assert [told(row, "log", "confirmed", "carried", "missing") for row in books.rows()] == [(3, 1, 2, 0), (5, 5, 0, 0)]


def test_given_an_increment_made_anew_in_the_next_period_then_its_usage_is_carried_from_the_one_it_was_planned_for(
    books: Invoicing,
) -> None:
    """The period of its first identifier is known by that alone."""
    books.use("acme", 3, minute(OLD))
    number = books.increment("acme", EARLIER, {("page", OLD): (0, 3)}, state="pending")
    books.sql(
        "UPDATE stripe_increment SET generation = 2, identifier = 'b1-again', reason = 'closed', period_start = %s,"
        " period_end = %s, event_at = %s, carries_from = %s WHERE increment_id = %s",
        *(*PRESENT, NEW + timedelta(minutes=45), OLD, number),
    )

    (row,) = books.rows()

    assert (row.period_start, *told(row, "log", "planned", "carried", "missing")) == (BEFORE, 3, 0, 3, 0)


def test_given_usage_of_several_meters_then_each_adds_up_in_its_own_units(books: Invoicing) -> None:
    """Given a meter of 1,000 credits a unit, then less than one unit waits, and says so in credits."""
    books.sql("INSERT INTO meter (event_name, unit, credits_per_unit) VALUES ('tokens', 'k', 1000)")
    books.sql("INSERT INTO sku_meter (sku, event_name) VALUES ('token', 'tokens')")
    books.use("acme", 2_999, minute(NEW), sku="token")
    books.use("acme", 7, minute(NEW))
    books.increment("acme", PRESENT, {("token", NEW): (0, 1_000)}, meter="tokens", credits_per_unit=1_000)
    books.increment("acme", PRESENT, {("page", NEW): (0, 7)})

    credits_, tokens = books.rows()

    assert (credits_.event_name, *told(credits_, "log", "confirmed", "unplanned")) == (METER, 7, 7, 0)
    names = ("log", "confirmed", "unplanned", "unplanned_units", "remainder", "missing")
    assert (tokens.event_name, *told(tokens, *names)) == ("tokens", 2_999, 1_000, 1_999, 1, 999, 0)


def test_given_a_sku_that_another_meter_counts_from_now_on_then_what_was_planned_stays_with_the_first(
    books: Invoicing,
) -> None:
    books.use("acme", 30, minute(NEW))
    books.increment("acme", PRESENT, {("page", NEW): (0, 20)})
    books.sql("INSERT INTO meter (event_name) VALUES ('pages')")
    books.sql("INSERT INTO sku_meter (sku, event_name) VALUES ('page', 'pages')")
    books.period("cus_acme", *PRESENT, meter="pages")

    found = {row.event_name: told(row, "log", "confirmed", "unplanned", "missing") for row in books.rows()}

    assert found == {METER: (20, 20, 0, 0), "pages": (10, 0, 10, 0)}


def test_given_no_period_that_is_known_then_usage_is_counted_by_its_month(books: Invoicing) -> None:
    books.client("globex")
    books.use("globex", 5, minute(NEW))

    (row,) = books.rows("globex")

    month = NEW.replace(day=1, hour=0)
    assert (row.is_known, row.period_start, *told(row, "log", "unplanned", "missing")) == (False, month, 5, 5, 0)


def test_given_corrections_beyond_the_usage_of_a_period_then_what_waits_is_below_0(books: Invoicing) -> None:
    books.use("acme", 5, minute(NEW))
    books.increment("acme", PRESENT, {("page", NEW): (0, 5)})
    books.give_back("acme", 2, minute(NEW))

    (row,) = books.rows()

    assert told(row, "log", "confirmed", "unplanned", "missing", "remainder") == (3, 5, -2, 0, 0)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (
            "UPDATE usage_rollup SET credits = credits + 1",
            "-1 credits of the log are in no increment and wait for none; the log has 30 credits, usage_rollup 31",
        ),
        ("UPDATE usage_rollup SET planned = planned + 1", "1 credits of the log are in no increment and wait for none"),
        ("DELETE FROM stripe_increment_part", "20 credits of the log are in no increment and wait for none"),
        (
            "UPDATE stripe_increment_part SET credits_to = 19",
            "1 credits of the log are in no increment and wait for none",
        ),
    ],
)
def test_given_a_book_changed_by_hand_then_the_row_of_its_period_says_by_how_much(
    books: Invoicing, spoil: str, found: str
) -> None:
    """Only what differs is shown of many clients; everything is counted."""
    books.client("globex", "cus_globex")
    for client_id in ("acme", "globex"):
        books.use(client_id, 30, minute(NEW))
        books.increment(client_id, PRESENT, {("page", NEW): (0, 20)})
    assert books.invoices(every=False).rows == ()
    column = "client_id" if "part" not in spoil else "increment_id"
    books.sql(f"{spoil} WHERE {column} = %s", "acme" if column == "client_id" else 1, owner=True)

    invoices = books.invoices(every=False)

    (row,) = invoices.rows
    assert (row.client_id, row.says) == ("acme", found)
    assert (invoices.clients, invoices.periods, invoices.differing, invoices.ok) == (2, 2, 1, False)
    assert invoices.sums["log"] == 60


class Counted:
    """Totals that a test says: customer → units."""

    def __init__(self, **units: int) -> None:
        self._units = units
        self.asked: list[tuple[str, str, datetime, datetime]] = []

    def total(self, customer_id: str, event_name: str, start: datetime, end: datetime) -> int:
        """Return what the test said; whom it did not name, nobody answers for."""
        self.asked.append((customer_id, event_name, start, end))
        if customer_id not in self._units:
            raise Unreachable("Stripe: does not answer")
        return self._units[customer_id]


def test_given_stripes_total_then_it_is_asked_for_in_whole_minutes_and_compared_in_units(books: Invoicing) -> None:
    """Given 2 units of 1,000 credits, then Stripe has 2; one more is a difference, whatever the credits say."""
    books.period("cus_acme", *PRESENT)
    books.sql("INSERT INTO meter (event_name, credits_per_unit) VALUES (%s, 1000)", METER)
    books.use("acme", 2_500, minute(NEW))
    books.increment("acme", PRESENT, {("page", NEW): (0, 2_000)}, credits_per_unit=1_000)
    whole = tuple(at.replace(second=0) for at in PRESENT)

    right = Counted(cus_acme=2)
    (row,) = books.rows(stripe=True, totals=right)

    assert right.asked == [("cus_acme", METER, *whole)]
    assert (*told(row, "sent", "stripe", "difference", "log"), row.differs) == (2, 2, 0, 2_500, False)

    (row,) = books.rows(stripe=True, totals=Counted(cus_acme=3))
    assert (*told(row, "stripe", "difference"), row.differs) == (3, 1, True)
    assert "Stripe has 3 units, 2 units were sent" in row.says


def test_given_late_usage_and_an_invoice_item_then_stripes_total_is_of_what_is_stamped_in_the_period(
    books: Invoicing,
) -> None:
    """What is carried counts where it is billed; what is a line of its own is in no meter's sum."""
    books.period("cus_acme", *PRESENT)
    books.use("acme", 3, minute(OLD))
    books.use("acme", 5, minute(NEW))
    books.increment("acme", PRESENT, {("page", OLD): (1, 3), ("page", NEW): (0, 5)})
    books.increment("acme", EARLIER, {("page", OLD): (0, 1)}, kind="invoice_item")

    earlier, present = books.rows(stripe=True, totals=Counted(cus_acme=7))

    assert told(earlier, "log", "confirmed", "carried", "sent", "stripe") == (3, 1, 2, 0, None)
    assert (*told(present, "log", "confirmed", "sent", "stripe"), present.differs) == (5, 5, 7, 7, False)


def test_given_an_earlier_identifier_that_arrived_after_all_then_its_period_differs(books: Invoicing) -> None:
    """L8: counted under two identifiers, in two invoices, is counted twice."""
    books.period("cus_acme", *PRESENT)
    books.use("acme", 3, minute(OLD))
    number = books.increment("acme", EARLIER, {("page", OLD): (0, 3)}, state="pending")
    books.sql(
        "UPDATE stripe_increment SET generation = 2, identifier = 'b1-again', reason = 'absent', period_start = %s,"
        " period_end = %s, event_at = %s, carries_from = %s WHERE increment_id = %s",
        *(*PRESENT, NEW + timedelta(minutes=45), OLD, number),
    )
    books.sql("UPDATE stripe_increment SET state = 'sent', last_attempt_at = now() - interval '1 hour'")

    earlier, present = books.rows(stripe=True, totals=Counted(cus_acme=3))

    assert (*told(earlier, "sent", "stripe", "difference"), earlier.differs) == (0, 3, 3, True)
    assert (*told(present, "sent", "stripe", "difference"), present.differs) == (3, 3, 0, False)


def test_given_a_stripe_that_does_not_answer_then_the_rows_say_so_and_the_rest_is_compared(books: Invoicing) -> None:
    books.use("acme", 30, minute(NEW))
    books.increment("acme", PRESENT, {("page", NEW): (0, 30)})

    invoices = books.invoices("acme", stripe=True, totals=Counted())

    assert not invoices.ok
    assert invoices.differing == 0
    assert invoices.not_compared == len(invoices.rows)
    assert all("does not answer" in row.not_compared for row in invoices.rows)
    assert invoices.sums["confirmed"] == 30


def test_given_slices_of_one_client_then_all_are_counted_once(books: Invoicing, database: Settings) -> None:
    for client_id in ("bolt", "corp"):
        books.client(client_id)
        books.use(client_id, 5, minute(NEW))
    with invoicing_on(dataclasses.replace(database, reconcile_slice=1)) as sliced:
        invoices = sliced.invoices()

    assert ([row.client_id for row in invoices.rows], invoices.clients) == (["bolt", "corp"], 3)
    with pytest.raises(UnknownClient):
        books.invoices("nobody")
