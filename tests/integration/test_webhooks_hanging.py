"""A receiver that hangs, or answers without end, delays no other, and its call ends with a bound (L9, L10)."""

from __future__ import annotations

import socket
import threading

import pytest
import sqlalchemy

from billing.alerts.deliveries import CALLS_MAX
from billing.alerts.recording import record
from tests.integration.alerting import Scene
from tests.webhooks import pouring, receiving

pytestmark = pytest.mark.integration


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


@pytest.mark.parametrize("status", [204, 410])
def test_an_answer_to_a_call_that_another_worker_has_repeated_changes_nothing(scene: Scene, status: int) -> None:
    """Given a call that outlasted its claim, when it is answered, then the later attempt's answer is to count (L9)."""
    with receiving(status, hanging=True) as hanging:
        scene.client("acme", url=hanging.url)
        scene.alerted("acme")
        worker = scene.worker()
        assert worker.step() == 1
        # What the claim of another worker does.
        with scene.runtime.engine.begin() as connection:
            connection.execute(sqlalchemy.text("UPDATE alert SET attempts = attempts + 1"))
        hanging.answers.set()
        worker.finish()
    assert scene.rows() == [("acme", "pending", 2, "")]


def test_l9_an_alert_whose_last_attempt_died_with_its_worker_is_given_up(scene: Scene) -> None:
    """Given as many attempts as there may be, none of them answered, then it is not called again."""
    with receiving() as fine:
        scene.client("acme", url=fine.url)
        scene.alerted("acme")
        with scene.runtime.engine.begin() as connection:
            most = {"most": scene.settings.webhook_attempts_max}
            connection.execute(sqlalchemy.text("UPDATE alert SET attempts = :most"), most)
        scene.deliver(scene.worker())
        assert not fine.calls
    assert [row[1] for row in scene.rows()] == ["failed"]


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
