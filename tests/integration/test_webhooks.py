"""From the row to the signed call of a webhook: no message is lost, and none is tried without end (L9, L10)."""

from __future__ import annotations

import socket
import threading
from datetime import timedelta

import pytest
import sqlalchemy

from billing import admin
from billing.alerts import deliveries
from billing.alerts.delivering import deliver_pending
from tests.integration.alerting import Scene
from tests.webhooks import receiving

pytestmark = pytest.mark.integration


def test_a_webhook_gets_one_signed_call(scene: Scene) -> None:
    with receiving() as receiver:
        secret = scene.client("acme", url=receiver.url)
        scene.alerted("acme")
        worker = scene.worker()
        for _ in range(3):
            scene.deliver(worker)
    (call,) = receiver.calls
    assert call.is_signed_by(secret)
    assert not call.is_signed_by(secret[:-4] + "AAA=")
    assert call.headers["content-type"] == "application/json"
    assert call.message["type"] == "billing.low_balance"
    data = call.message["data"]
    assert (data["client_id"], data["threshold_percent"], data["available"], data["granted"]) == ("acme", 20, 10, 100)
    assert scene.rows() == [("acme", "delivered", 1, "")]
    assert scene.rows("delivered_at, next_attempt_at") == [(scene.clock.now(), None)]


def test_a_webhook_that_was_down_gets_the_same_message_when_it_is_back(scene: Scene) -> None:
    """Given an answer 500, then nothing is sent for 5 s, and then the same id and body, freshly signed."""
    with receiving(500, 503, 200) as receiver:
        secret = scene.client("acme", url=receiver.url)
        scene.alerted("acme")
        for pause in (4.9, 0.2, 19.9, 0.2):
            # Another worker each time: the pauses are in the table, and survive restarts.
            scene.deliver(scene.worker())
            scene.clock.move(pause)
        scene.deliver(scene.worker())
    assert len(receiver.calls) == 3
    assert {(call.message_id, call.body) for call in receiver.calls} == {
        (receiver.calls[0].message_id, receiver.calls[0].body)
    }
    assert all(call.is_signed_by(secret) for call in receiver.calls)
    assert len({call.headers["webhook-timestamp"] for call in receiver.calls}) == 3
    assert scene.rows() == [("acme", "delivered", 3, "")]


@pytest.mark.parametrize(
    ("status", "calls", "row"),
    [
        (410, 1, ("acme", "failed", 1, "answered 410")),
        (500, 8, ("acme", "failed", 8, "answered 500")),
        (302, 8, ("acme", "failed", 8, "answered 302")),
    ],
)
def test_l9_attempts_end(scene: Scene, status: int, calls: int, row: tuple[object, ...]) -> None:
    """Given a receiver that is gone, broken or elsewhere, then so many calls are made, all to the URL itself."""
    with receiving(status) as receiver:
        scene.client("acme", url=receiver.url)
        scene.alerted("acme")
        worker = scene.worker()
        for _ in range(12):
            scene.deliver(worker)
            scene.clock.move(timedelta(hours=6).total_seconds())
    assert [call.path for call in receiver.calls] == ["/hook"] * calls
    assert scene.rows() == [row]


def test_a_webhook_that_nobody_serves_is_tried_again(scene: Scene) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        scene.client("acme", url=f"http://127.0.0.1:{nobody.getsockname()[1]}/token-in-the-path")
        scene.alerted("acme")
        scene.deliver(scene.worker())
    assert scene.rows() == [("acme", "pending", 1, "could not be called: ConnectError")]


def test_l10_a_secret_that_cannot_be_read_costs_nobody_else(scene: Scene) -> None:
    with receiving() as receiver:
        for client_id in ("acme", "globex"):
            scene.client(client_id, url=receiver.url)
        with scene.runtime.engine.begin() as connection:
            connection.execute(sqlalchemy.text("UPDATE webhook SET secret = 'whsec_a' WHERE client_id = 'acme'"))
        scene.alerted("acme", "globex")
        scene.deliver(scene.worker())
    assert sorted(scene.rows()) == [
        ("acme", "pending", 1, "its secret cannot be read: rotate it"),
        ("globex", "delivered", 1, ""),
    ]


def test_where_no_call_can_be_made_no_attempt_is_used_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a machine whose certificates cannot be read, then alerts wait as they were until they can."""

    def unreadable(**_: object) -> None:
        raise FileNotFoundError

    with receiving() as receiver:
        scene.client("acme", url=receiver.url)
        scene.alerted("acme")
        worker = scene.worker()
        with monkeypatch.context() as patch:
            patch.setattr(deliveries, "Courier", unreadable)
            with pytest.raises(FileNotFoundError):
                worker.step()
        assert scene.rows() == [("acme", "pending", 0, "")]
        scene.deliver(worker)
    assert scene.rows() == [("acme", "delivered", 1, "")]


def test_a_worker_that_dies_after_claiming_leaves_it_to_the_next_under_the_same_id(scene: Scene) -> None:
    with receiving() as receiver:
        scene.client("acme", url=receiver.url)
        scene.alerted("acme")
        dead = scene.worker()
        dead._post = lambda call: threading.Event()  # type: ignore[assignment, method-assign, return-value]
        dead.step()
        alive = scene.worker()
        scene.deliver(alive)
        assert receiver.calls == [], "the claim still holds"
        scene.clock.move(scene.settings.webhook_timeout_seconds + 5.1)
        scene.deliver(alive)
        dead._under_way.clear()
    (call,) = receiver.calls
    assert call.message_id == f"alert_{scene.rows('alert_id')[0][0]}" == f"alert_{call.message['data']['alert_id']}"
    assert scene.rows() == [("acme", "delivered", 2, "")]


def test_two_workers_at_once_make_each_call_once(scene: Scene) -> None:
    with receiving() as receiver:
        clients = [f"client-{number:02}" for number in range(30)]
        for client_id in clients:
            scene.client(client_id, url=receiver.url)
        scene.alerted(*clients)
        start = threading.Barrier(4)

        def run() -> None:
            start.wait()
            deliver_pending(scene.runtime)

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(call.message["data"]["client_id"] for call in receiver.calls) == clients
    assert {row[1:] for row in scene.rows()} == {("delivered", 1, "")}


def test_an_alert_of_a_removed_webhook_goes_nowhere(scene: Scene) -> None:
    with receiving() as receiver:
        scene.client("acme", url=receiver.url)
        scene.alerted("acme")
        assert admin.remove_webhook(scene.settings, "acme")
        scene.deliver(scene.worker())
    assert receiver.calls == []
    assert scene.rows() == [("acme", "none", 0, "the webhook was removed")]


def test_a_rotated_secret_signs_what_is_sent_from_then_on(scene: Scene) -> None:
    with receiving(500, 200) as receiver:
        old = scene.client("acme", url=receiver.url)
        scene.alerted("acme")
        worker = scene.worker()
        scene.deliver(worker)
        new = admin.rotate_webhook(scene.settings, "acme")
        scene.clock.move(5)
        scene.deliver(worker)
    first, second = receiver.calls
    assert first.is_signed_by(old)
    assert second.is_signed_by(new)
    assert not second.is_signed_by(old)
