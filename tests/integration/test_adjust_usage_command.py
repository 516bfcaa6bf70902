"""`billing adjust usage` as a user types it: one line that says what is true after it, refusals of one line."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from billing.core.settings import Settings
from tests.integration.adjusting import charge
from tests.integration.recovering import Business
from tests.terminal import NOWHERE, Terminal

pytestmark = pytest.mark.integration

WHY = ("--reason", "the page was empty")


@pytest.fixture
def run(shop: Terminal) -> Iterator[uuid.UUID]:
    """Charge the shop's client, which has 100 credits, 40 of them for a run."""
    settings = Settings(
        database_url=shop.environment["BILLING_DATABASE_URL"],
        redis_url=shop.environment["BILLING_REDIS_URL"],
        redis_timeout_seconds=60.0,
        database_timeout_seconds=60.0,
    )
    business = Business(settings)
    yield charge(business, 40, "a")
    business.stop()


def test_a_correction_is_told_in_one_line_and_the_balance_has_it(shop: Terminal, run: uuid.UUID) -> None:
    """Given a charge, when some of it is returned, then the command says so; the same key says the same."""
    made = shop.type("adjust", "usage", str(run), "--credits", "-15", *WHY, "--key", "ticket-1", "--json").json()
    assert (made["corrects"], made["corrects_line"], made["credits"]) == (str(run), 0, -15)
    assert (made["client_id"], made["reason"], made["applied"]) == ("acme", "the page was empty", True)
    assert list(made["grants"].values()) == [-15]
    again = shop.type("adjust", "usage", f"{run}:0", "--credits", "-15", *WHY, "--key", "ticket-1")
    said = f"correction {made['run_id']}: -15 credits for acme; it is in its bucket"
    assert (again.code, again.out.strip()) == (0, said)
    more = shop.type("adjust", "usage", str(run), "--credits", "+5", *WHY)
    assert (more.code, "+5 credits for acme; it is in its bucket" in more.out) == (0, True)
    balance = shop.type("balance", "acme", "--json").json()
    assert (balance["available"], balance["spent"]) == (70, 30)
    receipt = shop.type("receipt", "acme", "--json").json()
    assert [line["credits"] for line in receipt["lines"][-2:]] == [-15, 5]
    assert [line["corrects"] for line in receipt["lines"][-2:]] == [f"{run}/0"] * 2
    assert receipt["lines"][-1]["reason"] == "the page was empty"


def test_what_redis_cannot_take_now_is_written_and_said(shop: Terminal, run: uuid.UUID) -> None:
    away = {"BILLING_REDIS_URL": NOWHERE["BILLING_REDIS_URL"], "BILLING_REDIS_TIMEOUT_SECONDS": "1"}
    found = shop.type("adjust", "usage", str(run), "--credits", "-15", *WHY, **away)
    assert (found.code, "its bucket follows" in found.out) == (0, True)
    assert shop.type("balance", "acme", "--json").json()["spent"] == 40


def test_refused_corrections_are_one_line_and_change_nothing(shop: Terminal, run: uuid.UUID) -> None:
    """Given input that breaks a rule, then field, value and rule in one line, exit code 2, and the books unchanged."""
    before = shop.books()
    refused: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
        ((str(run), "--credits", "0", *WHY), ("--credits", "0", "must be from 1")),
        ((str(run), "--credits", f"-{2**53}", *WHY), ("--credits", str(2**53), "must be from 1")),
        ((str(run), "--credits", "-1.5", *WHY), ("--credits", "'-1.5'", "whole number", "or the same below 0")),
        ((str(run), "--credits", "-41", *WHY), ("credits", "-41", "must be at least -40")),
        ((str(run), "--credits", "41", *WHY), ("credits", "41", "must be at most 40")),
        ((f"{run}:1", "--credits", "-1", *WHY), ("line", "1", "has the lines 0 to 0")),
        (
            (str(uuid.UUID(int=7)), "--credits", "-1", *WHY),
            ("run_id", "is not in the usage history, nor in"),
        ),
        (("acme", "--credits", "-1", *WHY), ("run_id", "'acme'", "must be a run id")),
        ((str(run), "--credits", "-1", "--reason", ""), ("reason", "''", "must be 1 to 500")),
        ((str(run), "--credits", "-1", *WHY, "--key", "first"), ("key", "'first'", "a grant of 100 credits")),
    ]
    for arguments, names in refused:
        shop.type("adjust", "usage", *arguments).refused(2, *names)
    assert shop.books() == before
    answer = shop.type(
        "adjust", "usage", str(run), "--credits", "-1", *WHY, **NOWHERE, BILLING_DATABASE_TIMEOUT_SECONDS="1"
    )
    answer.refused(1, "billing_database_url")
