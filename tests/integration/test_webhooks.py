"""From the row to the signed call of a webhook: no message is lost, no receiver delays another's (L9, L10)."""

from __future__ import annotations

import dataclasses
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy

from billing import admin
from billing.alerts import deliveries
from billing.alerts.deliveries import CALLS_MAX
from billing.alerts.delivering import deliver_pending
from billing.alerts.recording import record
from billing.core.settings import Settings
from tests.integration.alerting import Scene
from tests.webhooks import pouring, receiving

pytestmark = pytest.mark.integration


@pytest.fixture
def scene(redis_url: str, database: Settings, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Set the scene; webhooks have a minute to answer, or as long as the test says."""
    bound = getattr(request, "param", 60.0)
    settings = dataclasses.replace(database, redis_url=redis_url, webhook_timeout_seconds=bound)
    made = Scene(settings)
    yield made
    made.close()


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


def test_l10_a_hanging_webhook_delays_nobody(scene: Scene) -> None:
    """Given 20 webhooks that hang, when 20 others are due, then those are delivered while the first still hang."""
    with receiving(hanging=True) as hanging, receiving() as fine:
        slow = [f"slow-{number:02}" for number in range(20)]
        quick = [f"quick-{number:02}" for number in range(20)]
        for client_id in slow:
            scene.client(client_id, url=hanging.url)
        for client_id in quick:
            scene.client(client_id, url=fine.url)
        scene.alerted(*slow)
        worker = scene.worker()
        assert worker.step() == 20
        scene.alerted(*quick)

        def noted() -> dict[str, object]:
            return {row[0]: row[1:] for row in scene.rows()}

        wanted = dict.fromkeys(slow, ("pending", 1, "")) | dict.fromkeys(quick, ("delivered", 1, ""))
        scene.step_until(worker, lambda: noted() == wanted, "the others got theirs")
        assert not hanging.answers.is_set()
        hanging.answers.set()
        worker.finish()
    assert set(noted().values()) == {("delivered", 1, "")}


@pytest.mark.parametrize("scene", [1.0], indirect=True)
def test_l9_a_call_that_hangs_ends_with_the_bound(scene: Scene) -> None:
    with receiving(hanging=True) as hanging:
        scene.client("acme", url=hanging.url)
        scene.alerted("acme")
        scene.deliver(scene.worker())
    assert scene.rows() == [("acme", "pending", 1, "did not answer within 1 s")]


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


def test_l10_many_alerts_of_one_client_take_one_place(scene: Scene) -> None:
    with receiving(hanging=True) as hanging:
        scene.client("acme", url=hanging.url)
        scene.alerted("acme")
        scene.take("acme", 6)
        scene.take("acme", 500)
        assert record(scene.runtime) == 2
        worker = scene.worker()
        assert [worker.step() for _ in range(3)] == [1, 1, 1]
        hanging.answers.set()
        scene.step_until(worker, lambda: len(hanging.calls) == 3, "all three went out")
        worker.finish()
    assert [row[1] for row in scene.rows()] == ["delivered"] * 3


@pytest.mark.parametrize("scene", [1.0], indirect=True)
def test_l9_an_answer_of_a_byte_at_a_time_ends_with_the_bound(scene: Scene) -> None:
    """Given a receiver that sends a header without end, then its call ends as a whole within the timeout."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                try:
                    connection.sendall(b"HTTP/1.1 200 OK\r\n")
                    while not ended.wait(0.05):
                        connection.sendall(b"x")
                except OSError:
                    pass

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            scene.client("acme", url=f"http://127.0.0.1:{server.getsockname()[1]}/")
            scene.alerted("acme")
            scene.deliver(scene.worker())
            assert scene.rows() == [("acme", "pending", 1, "did not answer within 1 s")]
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize("scene", [60.0], indirect=True)
@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 500, id="hints"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 500, id="headers"),
    ],
)
def test_l9_an_answer_without_end_is_not_read_on(scene: Scene, first: bytes, then: bytes) -> None:
    """Given a receiver that pours out heads as fast as it can, then its call ends long before its time is up."""
    with pouring(first, then) as url:
        scene.client("acme", url=url)
        scene.alerted("acme")
        scene.deliver(scene.worker())
    assert scene.rows() == [("acme", "pending", 1, "could not be called: ReadError")]


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


def test_l9_no_more_calls_than_the_bound_are_under_way(scene: Scene) -> None:
    with receiving(hanging=True) as receiver:
        clients = [f"client-{number:03}" for number in range(CALLS_MAX + 6)]
        for client_id in clients:
            scene.client(client_id, url=receiver.url)
        scene.alerted(*clients)
        worker = scene.worker()
        assert worker.step() == worker.step() == CALLS_MAX
        receiver.answers.set()
        scene.step_until(worker, lambda: len(receiver.calls) == len(clients), "all were called")
        worker.finish()
    assert {row[1] for row in scene.rows()} == {"delivered"}


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
