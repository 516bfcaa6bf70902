"""What the application answers to a request, late, twice or never: it is granted once, or lapses in time (L9, L10)."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import psycopg
import pytest

from billing import admin
from billing.core.errors import InvalidValue
from billing.core.limits import USABLE_GRANTS_MAX
from billing.top_ups.asking import ATTEMPTS_MAX
from billing.top_ups.request import Request
from tests.integration.market import HOUR, Market
from tests.integration.topping_up import CALLS_FILE, DEADLY

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


def test_a_hook_that_raises_is_asked_again_for_the_same_request_and_lapses_in_the_end(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given doubt, then the same request is tried after growing pauses, a few times, and then the rule backs off."""

    def broken(_: Request) -> NoReturn:
        raise ConnectionError("the provider's, with a secret")

    market.shop.answer = broken
    market.topping_up("acme", back_off_seconds=48 * HOUR)
    for _ in range(ATTEMPTS_MAX + 3):
        market.work()
        market.later(HOUR)
    assert [call.request_id for call in market.shop.calls] == [1] * ATTEMPTS_MAX
    assert len({call.key for call in market.shop.calls}) == 1
    assert [call.attempts for call in market.shop.calls] == list(range(1, ATTEMPTS_MAX + 1))
    (row,) = admin.top_up(market.settings, "acme").requests
    assert (row.state, row.reason) == ("lapsed", "was asked too often, or for too long")
    assert admin.top_up(market.settings, "acme").declines == 1


def test_an_answer_that_is_none_is_doubt(market: Market) -> None:
    market.shop.answer = lambda _: True
    market.topping_up("acme")
    market.work()
    (row,) = admin.top_up(market.settings, "acme").requests
    assert (row.state, row.reason) == ("asked", "answered neither granted, declined nor pending")


def test_l10_an_answer_that_raises_when_it_is_looked_at_is_doubt_and_keeps_nobody_waiting(market: Market) -> None:
    """Given a hook that returns, say, a lazy query of a database that is away, then others are topped up."""

    class Lazy:
        def __repr__(self) -> str:
            raise ConnectionError("the database is away")

    market.shop.answers["acme"] = lambda _: Lazy()
    for client_id in ("acme", "globex"):
        market.topping_up(client_id)
    market.work()
    assert (market.requests("acme"), market.requests("globex")) == ([("asked", "low")], [("granted", "low")])


def test_a_pending_request_is_answered_later_and_once(market: Market) -> None:
    market.shop.answer = lambda _: "pending"
    market.topping_up("acme")
    market.work()
    market.later(HOUR)
    market.work()
    assert (market.requests(), len(market.shop.calls)) == ([("asked", "low")], 1)
    for _ in range(2):
        row = admin.answer_top_up(market.settings, 1, "granted")
        assert (row.state, row.answer) == ("granted", "")
    assert market.available() == 510
    with pytest.raises(InvalidValue, match=r"^request_id: 1: is granted already, so it cannot be declined$"):
        admin.answer_top_up(market.settings, 1, "declined")
    with pytest.raises(InvalidValue, match="9: is not a known request"):
        admin.answer_top_up(market.settings, 9, "granted")


def test_a_pending_request_without_an_answer_lapses_and_may_be_paid_for_yet(market: Market) -> None:
    market.shop.answer = lambda _: "pending"
    market.topping_up("acme")
    market.work()
    market.later(86_400)
    market.work()
    assert market.requests() == [("lapsed", "low")]
    assert admin.top_up(market.settings, "acme").declines == 1
    admin.answer_top_up(market.settings, 1, "granted")
    assert market.requests() == [("granted", "low")]
    assert market.available() == 510
    assert admin.top_up(market.settings, "acme").declines == 0


@pytest.mark.parametrize("answer", ["pending", "doubtful"])
def test_l9_a_request_that_is_to_lapse_is_not_asked_again_while_it_cannot(
    market: Market, session: psycopg.Connection[Any], answer: str
) -> None:
    """Given a locked request whose time is over, or in doubt after its attempts, then it lapses without a call."""
    market.shop.answer = lambda _: answer
    market.topping_up("acme")
    for _ in range(1 if answer == "pending" else ATTEMPTS_MAX):
        market.work(steps=1)
        market.later(86_399 if answer == "pending" else HOUR)
    asked = len(market.shop.calls)
    assert asked == (1 if answer == "pending" else ATTEMPTS_MAX)
    market.later(1)
    with session.transaction():
        session.execute("SELECT FROM top_up_rule WHERE client_id = 'acme' FOR UPDATE")
        market.work(steps=1)
    market.work(steps=1)
    assert (market.requests(), len(market.shop.calls)) == ([("lapsed", "low")], asked)


def test_a_grant_under_the_requests_key_is_its_answer(market: Market) -> None:
    """Given an application that grants by itself and then also says so, then there is one grant."""

    def pays(request: Request) -> str:
        admin.grant(market.settings, request.client_id, 450, key=request.key)
        return "granted"

    market.shop.answer = pays
    market.topping_up("acme")
    market.work()
    assert (market.requests(), market.available()) == ([("granted", "low")], 460)
    market.shop.answer = lambda _: "pending"
    market.topping_up("globex")
    market.work()
    admin.grant(market.settings, "globex", 7, key=market.shop.calls[-1].key)
    market.work()
    assert (market.requests("globex"), market.available("globex")) == ([("granted", "low")], 17)


def test_a_worker_that_is_killed_in_the_hook_has_the_request_asked_again_and_granted_once(
    market: Market, tmp_path: Path
) -> None:
    """Given SIGKILL after the hook was called, when the claim has run out, then it is the same request once more."""
    market.topping_up("acme")
    settings = {name: getattr(market.settings, name) for name in ("database_url", "redis_url", "top_up_hook")}
    command = [sys.executable, "-m", "tests.integration.triggering", json.dumps(settings)]
    died = subprocess.run(
        [*command, market.clock.at.isoformat(), "acme", "1", "1"],
        cwd=ROOT,
        env={**os.environ, CALLS_FILE: str(tmp_path / "calls"), DEADLY: "1"},
        input="go\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    market.work()
    assert (market.requests(), market.shop.calls) == ([("asked", "low")], [])
    market.later(market.settings.top_up_timeout_seconds + 6)
    market.work()
    assert (tmp_path / "calls").read_text() == "1\n"
    assert [(call.request_id, call.attempts) for call in market.shop.calls] == [(1, 2)]
    assert (market.requests(), market.available()) == ([("granted", "low")], 510)


def test_what_was_paid_for_and_is_refused_stays_open_until_it_is_granted(market: Market) -> None:
    """Given a client with 64 usable grants, when its top-up is paid for, then it is granted once there is room."""
    market.topping_up("acme", left=100, below_credits=10_000, below_percent=None)
    for number in range(USABLE_GRANTS_MAX - 1):
        row, _ = admin.grant(market.settings, "acme", 1, key=f"k-{number}")
    market.work()
    (waits,) = admin.top_up(market.settings, "acme").requests
    assert (waits.state, waits.answer) == ("asked", "granted")
    assert "64 grants with credits left" in waits.reason
    market.later(30 * 86_400)
    market.work()
    assert market.requests() == [("asked", "low")]
    admin.void(market.settings, row.grant_id)
    market.later(6 * HOUR)
    market.work()
    assert market.requests() == [("granted", "low")]
    assert len(market.shop.calls) == 1


def test_grants_that_repaid_debt_leave_room_for_what_was_paid_for(market: Market) -> None:
    """Given 64 grants of which nothing is left, since they repaid debt, when more was paid for, then it is granted."""
    market.topping_up("acme", left=100, below_credits=500, below_percent=None)
    admin.adjust_credits(market.settings, "acme", -100 - USABLE_GRANTS_MAX, key="debt", reason="a chargeback")
    for number in range(USABLE_GRANTS_MAX):
        admin.grant(market.settings, "acme", 1, key=f"k-{number}")
    assert (admin.balance(market.settings, "acme").owed, market.available()) == (0, 0)
    market.work()
    assert (market.requests(), market.available()) == ([("granted", "low")], 500)


@pytest.mark.parametrize("name", ["tests.integration.no_such_module:hook", "tests.integration.topping_up:HOOK"])
def test_a_hook_that_cannot_be_called_is_logged_once(
    market: Market, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Given a hook that is broken, when a worker steps each second, then one line says so, until something changes."""
    settings = market.runtime.settings
    market.topping_up("acme")

    def lines(name: str) -> int:
        caplog.clear()
        market.runtime.settings = dataclasses.replace(settings, top_up_hook=name)
        for _ in range(3):
            market.top_ups.step()
        return caplog.text.count("nobody is asked for top-ups")

    assert [lines(name), lines(name), lines(""), lines(name)] == [1, 0, 0, 1]
