"""From the stream to the signal and the webhook: nothing is lost, nothing waits for another (L9, L10)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy

import billing
from billing import admin
from billing.alerts.deliveries import CALLS_MAX
from billing.alerts.delivering import deliver_pending
from billing.alerts.recording import announce, prune, record
from billing.core.errors import Unreachable
from billing.core.settings import Settings
from billing.credits.values import ReserveOutcome
from tests.integration.alerting import Scene
from tests.webhooks import receiving

pytestmark = pytest.mark.integration


@pytest.fixture
def scene(redis_url: str, database: Settings, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Set the scene; webhooks have five seconds to answer, or as many as the test says."""
    bound = getattr(request, "param", 5.0)
    settings = Settings(redis_url=redis_url, database_url=database.database_url, webhook_timeout_seconds=bound)
    made = Scene(settings)
    yield made
    made.close()


@pytest.fixture
def heard() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Listen to both signals."""
    calls: list[tuple[str, dict[str, Any]]] = []

    def hear(signal: Any, sender: object, **named: Any) -> None:
        calls.append((signal.name, named))

    signals = (billing.alerts.low_balance, billing.alerts.exhausted)
    for signal in signals:
        signal.connect(hear)
    yield calls
    for signal in signals:
        signal.disconnect(hear)


def test_a_crossing_becomes_a_row_and_leaves_its_stream(scene: Scene) -> None:
    scene.client("acme")
    scene.alerted("acme")
    columns = "client_id, kind, threshold_percent, available, granted, delivery, attempts"
    assert scene.rows(columns) == [("acme", "low_balance", 20, 10, 100, "none", 0)]
    assert scene.redis.xlen(scene.stream("acme")) == 0
    assert record(scene.runtime) == 0


def test_an_entry_whose_removal_failed_is_no_second_row(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a worker that dies between commit and removal, when the next one reads the entry, then there is one row."""
    scene.client("acme")
    scene.take("acme", 90)

    def away(entries: object) -> None:
        raise Unreachable("billing_redis_url: 'away': test")

    with monkeypatch.context() as patch:
        patch.setattr(scene.runtime.buckets, "forget_alerts", away)
        with pytest.raises(Unreachable):
            record(scene.runtime)
    assert scene.redis.xlen(scene.stream("acme")) == 1
    assert record(scene.runtime) == 1
    assert len(scene.rows()) == 1
    assert scene.redis.xlen(scene.stream("acme")) == 0


def test_the_same_entry_id_of_another_server_is_another_alert(scene: Scene) -> None:
    """Given a Redis that was lost, when a new one happens to count to the same entry id, then both are recorded."""
    entry: dict[Any, Any] = {"client": "acme", "percent": 0, "available": 0, "granted": 9, "at": 1}
    for server in ("old", "new"):
        scene.redis.delete(scene.stream("acme"))
        scene.redis.xadd(scene.stream("acme"), {**entry, "server": server}, id="5-1")
        record(scene.runtime)
    assert len(scene.rows()) == 2


def test_each_alert_is_told_to_the_signals_receivers_once(
    scene: Scene, heard: list[tuple[str, dict[str, Any]]]
) -> None:
    scene.client("acme")
    scene.alerted("acme")
    assert scene.take("acme", 500) is ReserveOutcome.INSUFFICIENT
    record(scene.runtime)
    assert announce(scene.runtime) == 2
    assert announce(scene.runtime) == 0
    (low, first), (end, second) = heard
    times = [row[0] for row in scene.rows("occurred_at")]
    assert (low, end) == ("billing_low_balance", "billing_exhausted")
    assert first == {
        "client_id": "acme",
        "threshold_percent": 20,
        "available": 10,
        "granted": 100,
        "occurred_at": times[0],
        "alert_id": first["alert_id"],
    }
    assert (second["threshold_percent"], second["available"], second["alert_id"]) == (0, 10, first["alert_id"] + 1)


def test_a_receiver_that_raises_harms_nobody(scene: Scene, heard: list[tuple[str, dict[str, Any]]]) -> None:
    def broken(**named: Any) -> None:
        raise RuntimeError("a user's receiver")

    billing.alerts.low_balance.connect(broken)
    try:
        for client_id in ("acme", "globex"):
            scene.client(client_id)
        scene.alerted("acme", "globex")
        assert announce(scene.runtime) == 2
    finally:
        billing.alerts.low_balance.disconnect(broken)
    assert sorted(named["client_id"] for _, named in heard) == ["acme", "globex"]
    assert announce(scene.runtime) == 0


def test_a_signal_that_was_not_noted_as_sent_is_sent_again(
    scene: Scene, heard: list[tuple[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a worker that dies after the signal and before its commit, then the next one sends it again."""
    scene.client("acme")
    scene.alerted("acme")

    def dies() -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(scene.clock, "now", dies)
        with pytest.raises(SystemExit):
            announce(scene.runtime)
    assert announce(scene.runtime) == 1
    assert len({named["alert_id"] for _, named in heard}) == 1
    assert len(heard) == 2


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


@pytest.mark.parametrize("scene", [3.0], indirect=True)
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
        scene.step_until(worker, lambda: len(fine.calls) == 20, "the others got theirs")
        scene.step_until(worker, lambda: worker.step() == 0, "the hanging calls ended with their bound")
    found = {row[0]: row[1:] for row in scene.rows()}
    assert {found[client_id] for client_id in quick} == {("delivered", 1, "")}
    assert {found[client_id] for client_id in slow} == {("pending", 1, "did not answer within 3 s")}


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
        scene.clock.move(10.1)
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


def test_beats_pass_does_all_of_it(scene: Scene, heard: list[tuple[str, dict[str, Any]]]) -> None:
    """Given no loop that runs, when beat's task does, then rows, signals and webhooks of one client come out of it."""
    with receiving() as receiver:
        scene.client("acme", url=receiver.url)
        scene.take("acme", 90)
        scene.take("acme", 500)
        deliver_pending(scene.runtime)
        deliver_pending(scene.runtime)
    assert [name for name, _ in heard] == ["billing_low_balance", "billing_exhausted"]
    assert [call.message["type"] for call in receiver.calls] == ["billing.low_balance", "billing.exhausted"]
    assert [row[1] for row in scene.rows()] == ["delivered"] * 2


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


def test_l9_old_alerts_are_forgotten_but_for_those_that_wait(scene: Scene) -> None:
    with receiving(500) as receiver:
        scene.client("acme", url=receiver.url)
        scene.client("globex")
        scene.alerted("acme", "globex")
        announce(scene.runtime)
        prune(scene.runtime)
        assert len(scene.rows()) == 2
        scene.clock.move(timedelta(days=4_000).total_seconds())
        prune(scene.runtime)
    assert [row[0] for row in scene.rows()] == ["acme"]
