"""Servers that hang or are gone: the billing pages say so in words, and Flower goes on as if nothing were (L9, L10)."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator

import httpx
import pytest

from billing.embedded.stack import Stack
from tests.fleet.harness import Fleet
from tests.hanging import hanging
from tests.integration.billing_pages import addresses, cards, rows
from tests.integration.watching import flower_of
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def flower(running_fleet: Fleet) -> Iterator[httpx.Client]:
    """Run a Flower that has shown every page once: its connections are there."""
    running_fleet.client("acme", 1_000)
    with flower_of(running_fleet, "flower") as http:
        wait_until(lambda: "findings" in http.get("/billing").text, "the fleet has been read")
        for address in addresses():
            assert http.get(address).status_code == 200
        yield http


def available(http: httpx.Client) -> str | None:
    return cards(http.get("/billing/client?id=acme").text).get("Available")


def test_a_database_that_hangs_hangs_nothing_else(flower: httpx.Client, stack: Stack) -> None:
    """Given PostgreSQL under SIGSTOP, then Flower's own pages answer meanwhile, and what Redis has is shown."""
    http = flower
    with hanging(stack.postgres.child.child_pid):
        answered = threading.Event()
        shown: list[str] = []

        def ask() -> None:
            with httpx.Client(base_url=http.base_url, timeout=120) as own:
                shown.append(own.get("/billing/client?id=acme").text)
                shown.extend(own.get(address).text for address in addresses() if "static" not in address)
            answered.set()

        asking = threading.Thread(target=ask)
        asking.start()
        # While a page waits for PostgreSQL, others are shown: the first to end is not the one that waits.
        while not shown:
            assert http.get("/healthcheck").text == "OK"
            assert http.get("/tasks").status_code == 200
        asking.join(120)
        assert answered.is_set()
        of_client, *all_pages = shown
        assert "PostgreSQL has not answered within 4 s" in of_client
        assert cards(of_client)["Available"] == "1,000"
        assert not any("Traceback" in text for text in all_pages)
        wait_until(lambda: 'PostgreSQL <span class="billing-bad">does not answer' in http.get("/billing").text, "seen")
        # What is not known is not "never".
        assert not re.search("Last planned|was written", http.get("/billing").text)

    wait_until(lambda: rows(http.get("/billing/clients").text, "clients"), "PostgreSQL is asked again")
    wait_until(lambda: 'PostgreSQL <span class="billing-good">answers' in http.get("/billing").text, "seen again")


def test_a_redis_that_hangs_takes_the_balances_away_and_leaves_the_books(flower: httpx.Client, stack: Stack) -> None:
    http = flower
    with hanging(stack.valkey.child.child_pid):
        of_client = http.get("/billing/client?id=acme").text
        assert "The bucket cannot be shown now." in of_client
        assert available(http) is None
        (grant,) = rows(of_client, "grants")
        assert (grant["Granted"], grant["Available"]) == ("1,000", "—")
        (line,) = [row for row in rows(http.get("/billing/clients").text, "clients") if row[""] == "acme"]
        assert (line["State"], line["Available"]) == ("—", "—")
        assert "Holds cannot be shown now." in http.get("/billing/holds").text
        wait_until(lambda: 'Redis <span class="billing-bad">does not answer' in http.get("/billing").text, "seen")

    wait_until(lambda: available(http) == "1,000", "Redis is asked again")


def test_an_address_where_nobody_is_is_named_without_its_password(running_fleet: Fleet) -> None:
    """Given PostgreSQL and Redis that are not there, then each page says which, at once."""
    gone = {
        "BILLING_DATABASE_URL": "postgresql://someone:hidden-word@127.0.0.1:1/none",
        "BILLING_REDIS_URL": "redis://:hidden-word@127.0.0.1:1/0",
    }
    with flower_of(running_fleet, "alone", environment=gone) as http:
        for address in addresses():
            answer = http.get(address)
            assert answer.status_code == 200, address
            assert "hidden-word" not in answer.text
        of_client = http.get("/billing/client?id=acme").text
        assert "billing_database_url: " in of_client
        assert "billing_redis_url: " in of_client
