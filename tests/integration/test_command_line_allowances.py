"""`billing allowance add|end|list` and `billing top-up set|show|off|answer` as a user types them, and doctor's rows."""

from __future__ import annotations

import pytest

from billing.integration.configuration import read
from billing.task.runtime import Runtime
from billing.top_ups.looking import look
from tests.integration.topping_up import HOOK
from tests.terminal import Terminal

pytestmark = pytest.mark.integration

REFUSED = [
    (("allowance", "add", "acme", "5", "--every", "year"), ("every", "'year'", "must be one of")),
    (("allowance", "add", "acme", "0"), ("credits", "0", "must be from 1")),
    (("allowance", "add", "acme", "5", "--rollover", "-1"), ("rollover", "-1", "must be a whole number")),
    (("allowance", "add", "acme", "5", "--rollover", "some"), ("--rollover", "'some'", "whole number, or forever")),
    (("allowance", "add", "acme", "5", "--start", "soon"), ("--start", "'soon'", "must be a time")),
    (("allowance", "add", "acme", "5", "--end", "2001-01-01"), ("ends_at", "2001-01-01", "after the start")),
    (("allowance", "add", "acme", "5", "--kind", "gift"), ("kind", "'gift'", "must be one of")),
    (("allowance", "add", "nobody", "5"), ("client_id", "'nobody'", "known client")),
    (("allowance", "end", "99"), ("schedule_id", "99", "known allowance")),
    (("allowance", "list", "--client", "nobody"), ("client_id", "'nobody'", "known client")),
    (("top-up", "set", "acme", "5"), ("below", "must be either")),
    (("top-up", "set", "acme", "5", "--below-percent", "101"), ("below_percent", "101", "from 1 to 99")),
    (("top-up", "set", "acme", "5", "--below-credits", "-1"), ("--below-credits", "-1", "must be from 1")),
    (("top-up", "set", "acme", "5", "--below-percent", "5", "--cool-off", "1"), ("cool_off_seconds", "1", "from 60")),
    (("top-up", "set", "nobody", "5", "--below-percent", "5"), ("client_id", "'nobody'", "known client")),
    (("top-up", "show", "nobody"), ("client_id", "'nobody'", "known client")),
    (("top-up", "off", "nobody"), ("client_id", "'nobody'", "known client")),
    (("top-up", "answer", "99", "granted"), ("request_id", "99", "known request")),
    (("top-up", "answer", "99", "maybe"), ("answer", "'maybe'", "granted or declined")),
]


def test_what_is_refused_is_one_line_and_changes_nothing(shop: Terminal) -> None:
    """Given input that breaks a rule, then field, value and rule in one line, exit code 2, and the books unchanged."""
    before = shop.books()
    for arguments, names in REFUSED:
        shop.type(*arguments).refused(2, *names)
    assert shop.books() == before


def test_an_allowance_is_added_listed_and_ended(shop: Terminal) -> None:
    """Given an allowance, then its present period is granted at once, and the same key adds nothing more."""
    command = ("allowance", "add", "acme", "50", "--start", "2026-01-31", "--key", "plan", "--rollover", "1")
    made = shop.type(*command)
    assert made.code == 0
    assert made.out == (
        "allowance 1: 50 credits for acme each month from 2026-01-31T00:00:00+00:00, rolled over once; added\n"
    )
    assert shop.type(*command).out.endswith("is there already\n")
    assert shop.type("balance", "acme", "--json").json()["available"] == 150
    shop.type(*command, "--every", "week").refused(2, "'plan'", "every month", "week")

    (listed,) = shop.type("allowance", "list", "--client", "acme", "--json").json()
    assert (listed["state"], listed["every"], listed["rollover"], listed["reason"]) == ("open", "month", 1, "")
    assert "month" in shop.type("allowance", "list").out
    forever = shop.type("allowance", "add", "acme", "5", "--every", "day", "--rollover", "forever", "--json").json()
    assert forever["rollover"] is None
    assert "forever" in shop.type("allowance", "list").out
    assert "2 open, none put off" in shop.type("doctor").out

    for schedule in ("1", str(forever["schedule_id"])):
        assert shop.type("allowance", "end", schedule).out == f"allowance {schedule} of acme: ended\n"
        assert shop.type("allowance", "end", schedule, "--json").json()["state"] == "ended"
    again = shop.type(*command)
    assert (again.code, again.out.partition("; ")[2]) == (0, "its key is that of one that ended: it was ended\n")
    assert shop.type("allowance", "list", "--json").json() == []
    assert len(shop.type("allowance", "list", "--ended", "--json").json()) == 2


def test_a_top_up_is_set_shown_answered_and_turned_off(shop: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a rule, then it says what it does; without a hook doctor says so; an answer grants once."""
    made = shop.type("top-up", "set", "acme", "5000", "--below-percent", "20")
    said = "5,000 credits when below 20 %; rests 3,600 s, after a decline 3,600 s up to 604,800 s"
    assert (made.code, made.out) == (0, f"top-up of acme: {said}\n")
    assert shop.type("top-up", "show", "acme").out == made.out
    assert "nobody is asked" in shop.type("doctor").out
    assert "1 rules, 0 requests" in shop.type("doctor", BILLING_TOP_UP_HOOK=HOOK).out
    other = shop.type("top-up", "set", "acme", "70", "--below-credits", "1000", "--cool-off", "60", "--json").json()
    assert (other["below_percent"], other["below_credits"], other["cool_off_seconds"]) == (None, 1_000, 60)
    shown = shop.type("top-up", "show", "acme", "--json").json()
    assert (shown["rule"], shown["declines"], shown["requests"]) == (other, 0, [])
    assert _look(shop, monkeypatch) == 1
    (wanted,) = shop.type("top-up", "show", "acme", "--json").json()["requests"]
    assert (wanted["state"], wanted["credits"], wanted["available"]) == ("wanted", 70, 100)
    request = str(wanted["request_id"])
    assert shop.type("top-up", "answer", request, "granted").out == f"request {request} of acme: granted\n"
    shop.type("top-up", "answer", request, "declined").refused(2, "request_id", request, "is granted already")
    assert shop.type("balance", "acme", "--json").json()["available"] == 170
    assert "granted" in shop.type("top-up", "show", "acme").out
    assert shop.type("top-up", "off", "acme").out == "top-up of acme: off\n"
    assert shop.type("top-up", "off", "acme", "--json").json() == {"client_id": "acme", "removed": False}
    assert shop.type("top-up", "show", "acme").out.startswith("top-up of acme: off\n")


def _look(shop: Terminal, monkeypatch: pytest.MonkeyPatch) -> int:
    """Look at the balances as a worker does; return how many requests that made."""
    with monkeypatch.context() as patch:
        for name, value in shop.environment.items():
            patch.setenv(name, value)
        settings = read({})
    runtime = Runtime(lambda: settings)
    made = look(runtime)
    runtime.close()
    return made
