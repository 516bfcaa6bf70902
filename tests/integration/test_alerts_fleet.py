"""Alerts through real processes: a client runs dry in a worker, the fulfillment worker tells it."""

from __future__ import annotations

import signal

import psycopg
import pytest

from billing import InsufficientCredits, admin
from tests.fleet.harness import Fleet
from tests.fleet.tasks import noted
from tests.waiting import wait_until
from tests.webhooks import receiving

pytestmark = pytest.mark.integration


def delivered(fleet: Fleet, count: int) -> bool:
    """Whether so many alerts are delivered."""
    rows = admin.alerts(fleet.settings)
    return [row.delivery for row in rows] == ["delivered"] * count


def dry(fleet: Fleet, client_id: str) -> None:
    """Spend all of a client's 100 credits, 10 a task, and have some more refused."""
    for result in [fleet.send("ok", client_id) for _ in range(10)]:
        result.get(timeout=120)
    for result in [fleet.send("ok", client_id) for _ in range(5)]:
        with pytest.raises(InsufficientCredits):
            result.get(timeout=120)


def test_a_client_that_runs_dry_is_told_once_by_signal_and_by_webhook(fleet: Fleet) -> None:
    """Given 100 credits, when 10 tasks spend them and 5 more are refused, then 20 % and the end are told, once each."""
    fleet.consumer(wait=False)
    fleet.worker(children=1)
    fleet.client("acme", 100)
    with receiving() as receiver:
        _, secret = admin.set_webhook(fleet.settings, "acme", receiver.url)
        dry(fleet, "acme")
        wait_until(lambda: delivered(fleet, 2), "both alerts are delivered")
        wait_until(lambda: noted(fleet.directory, "billing_exhausted"), "both signals are sent")
        fleet.stop()
    assert secret is not None
    assert all(call.is_signed_by(secret) for call in receiver.calls)
    told = sorted((call.message["type"], call.message["data"]["available"]) for call in receiver.calls)
    assert told == [("billing.exhausted", 0), ("billing.low_balance", 10)]
    assert noted(fleet.directory, "billing_low_balance") == ["acme 20"]
    assert noted(fleet.directory, "billing_exhausted") == ["acme 0"]
    log = "".join(path.read_text(errors="replace") for path in fleet.directory.glob("*.log"))
    assert secret not in log
    assert receiver.url not in log


def test_a_consumer_killed_between_claim_and_call_is_followed_by_one_that_calls(fleet: Fleet) -> None:
    """Given SIGKILL before the call, when another consumer starts, then the message comes, under the alert's one id."""
    (fleet.directory / "kill.post").touch()
    fleet.client("acme", 100)
    with receiving(500, 204) as receiver:
        _, secret = admin.set_webhook(fleet.settings, "acme", receiver.url)
        first = fleet.consumer("first", wait=False)
        fleet.worker(children=1)
        for _ in range(9):
            fleet.send("ok", "acme").get(timeout=120)
        wait_until(lambda: first.returncode == 128 + signal.SIGKILL, "the consumer is killed")
        assert receiver.calls == []
        with psycopg.connect(fleet.settings.database_url) as connection:
            assert connection.execute("SELECT attempts, delivery FROM alert").fetchall() == [(1, "pending")]
        fleet.consumer("second")
        wait_until(lambda: delivered(fleet, 1), "the alert is delivered, after a failure")
    assert len(receiver.calls) == 2
    assert {(call.message_id, call.body) for call in receiver.calls} == {
        (receiver.calls[0].message_id, receiver.calls[0].body)
    }
    assert all(call.is_signed_by(secret or "") for call in receiver.calls)
    assert noted(fleet.directory, "billing_low_balance") == ["acme 20"]
