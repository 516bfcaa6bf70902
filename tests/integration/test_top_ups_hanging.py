"""A hook of the application's that hangs keeps nobody waiting, and what it answers late counts, once (L9, L10)."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any, NoReturn

import pytest
import sqlalchemy

from billing.top_ups.asking import run_top_ups
from billing.top_ups.statements import NOTE
from tests.integration.market import HOUR, Market
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


def test_l10_a_hook_that_hangs_delays_nobody_and_its_late_answer_counts(market: Market) -> None:
    """Given a hook that hangs for one client, then others are topped up; once it answers, so is that one."""
    released = threading.Event()
    market.shop.answers["acme"] = lambda _: "granted" if released.wait(600) else "declined"
    try:
        for client_id in ("acme", "globex", "initech"):
            market.topping_up(client_id)
        for client_id in ("globex", "initech"):
            market.step_until_granted(client_id)
        market.later(2 * HOUR)
        market.top_ups.step()
        assert market.requests("acme") == [("asked", "low")]
        assert [call.client_id for call in market.shop.calls].count("acme") == 1
    finally:
        released.set()
    market.step_until_granted("acme")
    assert market.available("acme") == 510


def test_l9_beats_pass_does_not_wait_for_a_hook_that_hangs_and_a_later_one_takes_its_answer(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a hook that hangs, when beat's task runs, then it ends; the answer that comes later counts, once."""
    monkeypatch.setattr("billing.top_ups.asking.PASS_SECONDS", 0.1)
    released = threading.Event()
    market.shop.answer = lambda _: "granted" if released.wait(600) else "declined"
    try:
        market.topping_up("acme")
        for _ in range(2):
            run_top_ups(market.runtime)
            assert market.requests() == [("asked", "low")]
    finally:
        released.set()

    def granted() -> bool:
        run_top_ups(market.runtime)
        return market.requests() == [("granted", "low")]

    wait_until(granted, "acme is topped up", timeout_seconds=120)
    assert len(market.shop.calls) == 1


def test_an_answer_that_outlasts_beats_pass_needs_no_other_one(
    market: Market, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Given an answer after the pass, then it is written as it comes, and one that cannot be by the next pass."""
    monkeypatch.setattr("billing.top_ups.asking.PASS_SECONDS", 0.1)
    released = threading.Event()
    market.shop.answer = lambda _: "granted" if released.wait(600) else "declined"
    try:
        market.topping_up("acme")
        run_top_ups(market.runtime)
        assert market.requests() == [("asked", "low")]
        released.set()
        wait_until(lambda: market.requests() == [("granted", "low")], "acme is topped up", timeout_seconds=120)
        released.clear()
        market.topping_up("globex")
        run_top_ups(market.runtime)
        with monkeypatch.context() as patch:
            patch.setattr("billing.top_ups.asking.grant_request", _away)
            released.set()
            wait_until(lambda: "waits for the next pass" in caplog.text, "the answer cannot be written")
        assert market.requests("globex") == [("asked", "low")]
        run_top_ups(market.runtime)
        assert market.requests("globex") == [("granted", "low")]
    finally:
        released.set()
    assert len(market.shop.calls) == 2


def _away(*_: object) -> NoReturn:
    raise RuntimeError("PostgreSQL is away")


def test_l9_hooks_that_hang_everywhere_are_no_more_than_their_bound(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given room for two calls, when every call hangs, then two are begun, and the third once one has ended."""
    for name in ("billing.top_ups.hook.CALLS_MAX", "billing.top_ups.asking.CALLS_MAX"):
        monkeypatch.setattr(name, 2)
    released = threading.Event()
    market.shop.answer = lambda _: "granted" if released.wait(600) else "declined"
    names = ("acme", "globex", "initech")
    try:
        for client_id in names:
            market.topping_up(client_id)
        for _ in range(3):
            market.top_ups.step()
        wait_until(lambda: len(market.shop.calls) == 2, "two calls", timeout_seconds=60)
    finally:
        released.set()
    for client_id in names:
        market.step_until_granted(client_id)
    assert len(market.shop.calls) == 3


def test_what_an_earlier_attempt_says_late_does_not_change_what_a_later_one_was_answered(market: Market) -> None:
    """L3: Given a call that hung past its claim, when it fails after another process was answered, then that counts."""
    released = threading.Event()

    def fails_late(_: object) -> NoReturn:
        released.wait(600)
        raise RuntimeError("the card service hung up")

    market.shop.answer = fails_late
    try:
        market.topping_up("acme")
        market.top_ups.step()
        ((request_id, attempts, *_),) = rows(market)
        later = {"request": request_id, "now": market.clock.now(), "next": market.clock.now() + timedelta(hours=1)}
        with market.runtime.engine.begin() as connection:
            # What the claim of another process does, and its answer.
            connection.execute(sqlalchemy.text("UPDATE top_up_request SET attempts = attempts + 1"))
            connection.execute(NOTE, {**later, "attempts": attempts + 1, "answer": "pending", "reason": ""})
        (waits,) = rows(market)
    finally:
        released.set()
    market.top_ups.finish()
    assert rows(market) == [waits]
    assert waits[1:4] == (2, "asked", "pending")


def rows(market: Market) -> list[tuple[Any, ...]]:
    """Return id, attempts, state, answer, reason and the next moment of each request."""
    asked = sqlalchemy.text("SELECT request_id, attempts, state, answer, reason, next_at FROM top_up_request")
    with market.runtime.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(asked)]
