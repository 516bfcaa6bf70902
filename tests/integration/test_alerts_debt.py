"""Debt, and top-ups that came to nothing: a row, a signal and a signed call of the client's webhook, once each."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import psycopg
import pytest

import billing.alerts
from billing import admin
from billing.alerts.announcing import announce
from billing.alerts.recording import record
from billing.top_ups.asking import ATTEMPTS_MAX
from billing.top_ups.finishing import decline_request
from billing.top_ups.request import Request
from tests.contract.making import a_run, a_settlement
from tests.hearing import hearing
from tests.integration.alerting import Scene
from tests.integration.market import HOUR, Market
from tests.webhooks import receiving

pytestmark = pytest.mark.integration


@pytest.fixture
def heard() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Listen to the two signals."""
    with hearing(billing.alerts.debt, billing.alerts.top_up_declined) as heard:
        yield heard


def settle(scene: Scene, client_id: str, credits: int, task_id: str) -> None:
    """Settle a run that nothing was held for."""
    settlement = a_settlement(a_run(client_id, task_id), credits, client_id=client_id)
    scene.runtime.buckets.settle(settlement)


def kinds(scene: Scene) -> list[str]:
    """Return the kinds in the table, the oldest first."""
    return [row[0] for row in scene.rows("kind")]


def test_a_debt_is_a_row_a_signal_and_a_signed_call_that_name_what_is_owed(
    scene: Scene, heard: list[tuple[str, dict[str, Any]]]
) -> None:
    """Given 100 credits and a limit of 50, when 180 are settled, then both are told, and the end apart from it."""
    with receiving() as receiver:
        secret = scene.client("acme", url=receiver.url)
        admin.set_overdraft(scene.settings, "acme", 50, key="limit", reason="agreed")
        settle(scene, "acme", 180, "first")
        settle(scene, "acme", 20, "second")
        record(scene.runtime)
        record(scene.runtime)
        announce(scene.runtime)
        announce(scene.runtime)
        worker = scene.worker()
        for _ in range(3):
            scene.deliver(worker)
    assert kinds(scene) == ["exhausted", "debt"]
    ((name, named),) = heard
    owed = {"owed": 80, "overdraft_limit": 50}
    assert (name, {key: named[key] for key in owed}) == ("billing_debt", owed)
    exhausted, debt = receiver.calls
    assert [call.message["type"] for call in receiver.calls] == ["billing.exhausted", "billing.debt"]
    assert debt.is_signed_by(secret)
    assert debt.message["data"] == {"alert_id": named["alert_id"], "client_id": "acme"} | owed
    assert exhausted.message_id != debt.message_id
    assert [row.details for row in admin.alerts(scene.settings, kind="debt")] == [owed]


def test_a_debt_paid_off_and_made_again_is_told_again(scene: Scene) -> None:
    scene.client("acme")
    settle(scene, "acme", 130, "first")
    admin.grant(scene.settings, "acme", 30, key="pays it")
    settle(scene, "acme", 5, "again")
    record(scene.runtime)
    assert kinds(scene).count("debt") == 2


def test_an_operators_adjustment_and_a_lowered_limit_begin_a_debt_too(scene: Scene) -> None:
    for client_id in ("acme", "globex"):
        scene.client(client_id)
    admin.adjust_credits(scene.settings, "acme", -150, key="wrong", reason="booked twice")
    admin.set_overdraft(scene.settings, "globex", 50, key="limit", reason="agreed")
    settle(scene, "globex", 140, "within")
    admin.set_overdraft(scene.settings, "globex", 10, key="lower", reason="agreed")
    record(scene.runtime)
    told = {row.client_id: row.details for row in admin.alerts(scene.settings, kind="debt")}
    assert told == {"acme": {"owed": 50, "overdraft_limit": 0}, "globex": {"owed": 40, "overdraft_limit": 10}}


def test_a_declined_top_up_is_told_once_for_each_request(
    market: Market, heard: list[tuple[str, dict[str, Any]]]
) -> None:
    """Given a card that is declined twice, then each request is one alert, however often it is said."""
    with receiving() as receiver:
        market.topping_up("acme", credits_=500, back_off_seconds=HOUR)
        secret = admin.set_webhook(market.settings, "acme", receiver.url)[1] or ""
        market.shop.answer = lambda _: "declined"
        market.work()
        assert not decline_request(market.runtime, 1, reason="said again")
        market.later(HOUR)
        market.work()
        announce(market.runtime)
        announce(market.runtime)
        worker = market.worker()
        for _ in range(3):
            market.deliver(worker)
    facts = [(named["request_id"], named["credits"], named["found"]) for _, named in heard]
    assert facts == [(request_id, 500, "the automatic top-up was declined") for request_id in (1, 2)]
    assert {name for name, _ in heard} == {"billing_top_up_declined"}
    assert [call.message["data"]["request_id"] for call in receiver.calls] == [1, 2]
    assert all(call.is_signed_by(secret) for call in receiver.calls)


def test_a_top_up_that_lapses_is_told_without_what_the_hook_raised(market: Market) -> None:
    """Given a hook that raises a payment provider's words, then neither row nor message has any of them."""

    def broken(_: Request) -> NoReturn:
        raise ConnectionError("sk_live_planted card 4242")

    market.shop.answer = broken
    market.topping_up("acme", back_off_seconds=48 * HOUR)
    for _ in range(ATTEMPTS_MAX + 3):
        market.work()
        market.later(HOUR)
    (row,) = admin.alerts(market.settings, kind="top_up_declined")
    assert row.found == "the automatic top-up came to nothing: it was not answered in time"
    assert row.details == {"request_id": 1, "credits": 500}
    assert "planted" not in json.dumps(market.rows("to_jsonb(alert)::text"))


def test_what_was_never_asked_for_or_was_granted_is_no_decline(market: Market) -> None:
    market.topping_up("acme")
    market.work()
    assert market.requests() == [("granted", "low")]
    market.topping_up("globex")
    market.top_ups.step()
    admin.remove_top_up(market.settings, "globex")
    assert admin.alerts(market.settings, kind="top_up_declined") == []


def test_decline_and_alert_are_one_transaction(market: Market, session: psycopg.Connection[Any]) -> None:
    """Given an alert that cannot be written, then the request is not declined either, and is tried again."""
    market.topping_up("acme")
    market.shop.answer = lambda _: "declined"
    session.execute("ALTER TABLE alert ADD CONSTRAINT none_for_now CHECK (kind <> 'top_up_declined') NOT VALID")
    with pytest.raises(Exception, match="none_for_now"):
        market.work()
    assert market.requests() == [("asked", "low")]
    session.execute("ALTER TABLE alert DROP CONSTRAINT none_for_now")
    market.work()
    assert market.requests() == [("declined", "low")]
    assert len(admin.alerts(market.settings, kind="top_up_declined")) == 1


def test_threads_that_decline_one_request_write_one_alert(market: Market) -> None:
    market.topping_up("acme")
    market.shop.answer = lambda _: "pending"
    market.work()
    start, done = threading.Barrier(8), []

    def one() -> None:
        start.wait()
        done.append(decline_request(market.runtime, 1, reason="was answered so"))

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done.count(True) == 1
    assert len(admin.alerts(market.settings, kind="top_up_declined")) == 1
