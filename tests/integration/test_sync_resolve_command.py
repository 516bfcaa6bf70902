"""`billing sync resolve`, as a person types it who has looked at Stripe."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from billing.core.settings import Settings
from tests.integration.invoicing import Invoicing, invoicing_on
from tests.terminal import Terminal

pytestmark = pytest.mark.integration

START = (datetime.now(UTC) - timedelta(days=5)).replace(minute=0, second=0, microsecond=0)


@pytest.fixture
def books(database: Settings, shop: Terminal) -> Iterator[Invoicing]:
    """Open the shop's books with an increment of 5 credits in quarantine."""
    assert shop.environment["BILLING_DATABASE_URL"] == database.database_url
    with invoicing_on(database) as opened:
        opened.client("bolt", "cus_bolt")
        opened.use("bolt", 5, START)
        opened.increment("bolt", (START, START + timedelta(days=30)), {("page", START): (0, 5)}, state="quarantined")
        yield opened


@pytest.mark.parametrize(
    ("resolution", "state", "column", "says"),
    [
        ("confirmed", "confirmed", "confirmed", "it is on its invoice"),
        ("resend", "pending", "planned", "next: billing sync plan"),
        ("write-off", "written_off", "written_off", "it is on no invoice"),
    ],
)
def test_what_a_person_says_is_done_once_and_kept_with_its_reason(
    shop: Terminal, books: Invoicing, resolution: str, state: str, column: str, says: str
) -> None:
    """Given a quarantined increment, then the books add up after each answer, and the same again is harmless."""
    typed = ("sync", "resolve", "1", "--as", resolution, "--reason", "seen in the dashboard")

    answer = shop.type(*typed)

    assert (answer.code, answer.out.startswith(f"increment 1 of client bolt is {state}: ")) == (0, True), answer
    assert says in answer.out
    assert shop.type(*typed, "--json").json()["state"] == state
    said = shop.type("sync", "show", "1", "--json").json()["resolutions"]
    assert [(one["resolved_as"], one["was"], one["reason"]) for one in said] == [
        (resolution, "quarantined", "seen in the dashboard")
    ]
    (row,) = books.rows("bolt")
    assert (getattr(row, column), row.missing) == (5, 0)
    # Its bucket knows of no usage, and that is not what is looked at here: there is nothing to wait for.
    hasty = Terminal({**shop.environment, "BILLING_RECONCILE_WAIT_SECONDS": "0.1"}, shop.directory)
    assert hasty.type("reconcile", "bolt", "--no-stripe").out.count("L8 planned") == 1


def test_what_is_wrong_is_refused_in_one_line_and_changes_nothing(shop: Terminal, books: Invoicing) -> None:
    def refused(*typed: str, names: tuple[str, ...]) -> None:
        shop.type("sync", "resolve", *typed).refused(2, *names)

    refused("2", "--as", "resend", "--reason", "why", names=("increment", "2", "billing sync status"))
    refused("1", "--as", "resend", "--reason", "  ", names=("reason", "must say why"))
    for usage in (("1", "--as", "lost", "--reason", "why"), ("1", "--reason", "why"), ("1", "--as", "resend")):
        assert shop.type("sync", "resolve", *usage).code == 2
    books.sql("UPDATE stripe_increment SET state = 'sent'")
    refused("1", "--as", "resend", "--reason", "why", names=("1", "is sent", "rejected, quarantined or ambiguous"))
    assert books.sql("SELECT state FROM stripe_increment") == [("sent",)]
    assert books.sql("SELECT * FROM stripe_resolution") == []
    assert "Example: billing sync resolve" in shop.type("sync", "resolve", "--help").out
