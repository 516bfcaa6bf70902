"""`billing grant` with terms, `void`, `adjust credits`, `client suspend|resume|close|overdraft`, `balance --at`."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from billing.core.credits import CREDITS_MAX
from tests.terminal import Terminal

pytestmark = pytest.mark.integration

TOO_MUCH = str(2**53)
REFUSED = [
    (("grant", "acme", "5", "--kind", "gift"), ("kind", "'gift'", "must be one of")),
    (("grant", "acme", "5", "--priority", "-1"), ("--priority", "-1", "must be from 0")),
    (("grant", "acme", "5", "--priority", "first"), ("--priority", "'first'", "whole number")),
    (("grant", "acme", "5", "--expires", "2001-01-01"), ("expires_at", "2001-01-01", "must be after the present")),
    (("grant", "acme", "5", "--expires", "soon"), ("--expires", "'soon'", "must be a time")),
    (("grant", "acme", "5", "--sku", "Bad SKU"), ("sku", "'Bad SKU'", "must be")),
    (("void", "99"), ("grant_id", "99", "is not a known grant")),
    (("void", "one"), ("grant_id", "'one'", "whole number")),
    (("adjust", "credits", "acme", "0"), ("amount", "0", "must be from 1")),
    (("adjust", "credits", "acme", "-1.5"), ("amount", "'-1.5'", "whole number")),
    (("adjust", "credits", "acme", f"-{TOO_MUCH}"), ("amount", TOO_MUCH, "must be from 1")),
    (("adjust", "credits", "nobody", "-5"), ("client_id", "'nobody'", "known client")),
    (("client", "suspend", "nobody"), ("client_id", "'nobody'", "known client")),
    (("client", "overdraft", "acme", "-1"), ("limit", "-1", "must be from 0")),
    (("client", "close", "acme", "--key", ""), ("key", "''", "must be")),
    (("balance", "acme", "--at", "2100-01-01"), ("at", "2100-01-01", "must not be after the present")),
    (("balance", "nobody", "--at", "2026-01-01"), ("client_id", "'nobody'", "known client")),
]


def test_refused_terms_are_one_line_and_change_nothing(shop: Terminal) -> None:
    """Given input that breaks a rule, then field, value and rule in one line, exit code 2, and the books unchanged."""
    before = shop.books()
    for arguments, names in REFUSED:
        shop.type(*arguments).refused(2, *names)
    assert shop.books() == before


def test_a_grant_with_terms_is_voided_adjusted_and_told(shop: Terminal) -> None:
    """Given terms, when a grant is made and voided and credits are taken, then each command says what is true after."""
    assert shop.type("client", "add", "fresh").code == 0
    start = datetime.now(UTC).isoformat()
    terms = ("--kind", "promo", "--priority", "7", "--expires", "2100-01-01", "--sku", "page", "--sku", "search")
    made = shop.type("grant", "fresh", "100", "--key", "first", *terms, "--json").json()
    assert (made["kind"], made["priority"], made["skus"]) == ("promo", 7, ["page", "search"])
    assert made["expires_at"] == "2100-01-01T00:00:00+00:00"
    assert shop.type("grant", "fresh", "100", "--key", "first", *terms, "--json").json()["grant_id"] == made["grant_id"]
    shop.type("grant", "fresh", "100", "--key", "first").refused(2, "first", "kind promo", "kind paid")

    shown = shop.type("client", "show", "fresh").out
    assert "terms, in burn order" in shown
    assert "page, search" in shown
    assert "2100-01-01" in shown

    taken = shop.type("adjust", "credits", "fresh", "-30", "--key", "t-1", "--reason", "twice", "--json").json()
    assert (taken["kind"], taken["credits"], taken["applied"]) == ("adjust", 30, True)
    shop.type("adjust", "credits", "fresh", "-31", "--key", "t-1").refused(2, "t-1", "-30", "-31")
    assert shop.type("adjust", "credits", "fresh", "5", "--json").json()["kind"] == "adjustment"
    voided = shop.type("void", str(made["grant_id"]))
    assert (voided.code, voided.out.strip()) == (0, f"grant {made['grant_id']} of fresh is voided; it is in its bucket")
    assert shop.type("void", str(made["grant_id"])).code == 0

    balance = shop.type("balance", "fresh", "--json").json()
    assert (balance["available"], balance["voided"], balance["owed"]) == (5, 100, 0)
    assert "voided" in shop.type("balance", "fresh").out
    assert "voided" in shop.type("client", "show", "fresh").out
    past = shop.type("balance", "fresh", "--at", start, "--json").json()
    assert (past["granted"], past["left"]) == (0, 0)
    now = shop.type("balance", "fresh", "--at", datetime.now(UTC).isoformat(), "--json").json()
    assert (now["granted"], now["voided"], now["left"]) == (105, 100, 5)

    all_of_it = str(CREDITS_MAX)
    shop.type("adjust", "credits", "fresh", f"-{all_of_it}").refused(2, "credits", f"-{all_of_it}", "billing void")
    shop.type("adjust", "credits", "fresh", "-25")
    assert shop.type("grant", "fresh", "50", "--kind", "promo").out.strip().endswith("it is in its bucket")
    balance = shop.type("balance", "fresh", "--json").json()
    assert (balance["available"], balance["owed"], balance["grants"][-1]["repaid"]) == (30, 0, 20)


def test_a_client_is_suspended_closed_and_resumed_and_may_owe(shop: Terminal) -> None:
    assert shop.type("client", "add", "owing").code == 0
    shop.type("grant", "owing", "10")
    assert shop.type("client", "overdraft", "owing", "500").out.strip().startswith("client owing may owe 500 credits")
    assert shop.type("client", "suspend", "owing", "--key", "s-1", "--json").json()["state"] == "suspended"
    shop.type("client", "close", "owing", "--key", "s-1").refused(2, "s-1", "the state suspended", "the state closed")
    assert "suspended; may owe 500" in shop.type("balance", "owing").out
    assert shop.type("client", "close", "owing").code == 0
    shop.type("grant", "owing", "10").refused(2, "client_id", "'owing'", "is closed")
    assert shop.type("client", "resume", "owing").code == 0
    assert shop.type("grant", "owing", "10").code == 0
    assert shop.type("client", "overdraft", "owing", "0").code == 0
    assert "may owe" not in shop.type("balance", "owing").out
