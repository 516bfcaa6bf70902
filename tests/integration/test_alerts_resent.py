"""Alerts are sent again by an operator: under the same id, all or none of those that were asked for."""

from __future__ import annotations

from datetime import timedelta

import pytest

from billing import admin
from billing.admin.access import runtime_for
from billing.alerts.alert import CORRUPT
from billing.core.errors import InvalidValue, UnknownClient
from tests.integration.alerting import Scene
from tests.terminal import Terminal
from tests.webhooks import Receiver, receiving

pytestmark = pytest.mark.integration


@pytest.fixture
def scene(scene: Scene) -> Scene:
    """Have the operator's commands go by the scene's clock, too."""
    runtime_for(scene.settings).clock = scene.clock
    return scene


def fail(scene: Scene, *client_ids: str, receiver: Receiver) -> None:
    """Have an alert of each client fail: its webhook says that it is gone."""
    for client_id in client_ids:
        scene.client(client_id, url=receiver.url)
    scene.alerted(*client_ids)
    for _ in client_ids:
        scene.deliver(scene.worker())
    assert {row[1] for row in scene.rows()} == {"failed"}


def test_what_failed_goes_out_again_under_its_id_with_all_its_attempts(scene: Scene) -> None:
    """Given a parked alert, when it is resent, and again before its call, then there is one more call of the same."""
    with receiving(410, 500, 200) as receiver:
        fail(scene, "acme", receiver=receiver)
        (parked,) = admin.alerts(scene.settings, failed=True)
        assert (parked.delivery, parked.reason) == ("failed", "answered 410")
        for _ in range(2):
            assert admin.resend_alerts(scene.settings, [parked.alert_id]).alert_ids == [parked.alert_id]
        assert scene.rows() == [("acme", "pending", 0, "")]
        worker = scene.worker()
        scene.deliver(worker)
        assert scene.rows() == [("acme", "pending", 1, "answered 500")]
        scene.clock.move(5)
        scene.deliver(worker)
    assert len({(call.message_id, call.body) for call in receiver.calls}) == 1
    assert scene.rows() == [("acme", "delivered", 2, "")]
    assert admin.alerts(scene.settings, failed=True) == []


def test_what_waits_for_hours_is_due_now_and_what_was_taken_is_sent_once_more(scene: Scene) -> None:
    with receiving(500, 500, 500, 200) as receiver:
        scene.client("acme", url=receiver.url)
        scene.alerted("acme")
        worker = scene.worker()
        for pause in (5, 20):
            scene.deliver(worker)
            scene.clock.move(pause)
        scene.deliver(worker)
        (waiting,) = admin.alerts(scene.settings, pending=True)
        admin.resend_alerts(scene.settings, [waiting.alert_id])
        scene.deliver(worker)
        assert scene.rows() == [("acme", "delivered", 4, "")]
        admin.resend_alerts(scene.settings, [waiting.alert_id])
        scene.deliver(worker)
    assert scene.rows() == [("acme", "delivered", 1, "")]
    assert len(receiver.calls) == 5


def test_a_call_under_way_is_not_made_twice(scene: Scene) -> None:
    with receiving(hanging=True) as receiver:
        scene.client("acme", url=receiver.url)
        scene.alerted("acme")
        worker = scene.worker()
        worker.step()
        admin.resend_alerts(scene.settings, [1])
        scene.deliver(scene.worker())
        receiver.answers.set()
        worker.finish()
    assert len(receiver.calls) == 1
    assert scene.rows() == [("acme", "delivered", 1, "")]


def test_all_that_failed_are_sent_again_of_one_client_or_of_all(scene: Scene) -> None:
    with receiving(410) as receiver:
        fail(scene, "acme", "globex", "initech", receiver=receiver)
        admin.remove_webhook(scene.settings, "initech")
        assert len(admin.resend_alerts(scene.settings, client_id="acme", failed=True).alert_ids) == 1
        assert len(admin.resend_alerts(scene.settings, failed=True).alert_ids) == 1
        assert admin.resend_alerts(scene.settings, failed=True).alert_ids == []
    assert sorted(row[:2] for row in scene.rows()) == [
        ("acme", "pending"),
        ("globex", "pending"),
        ("initech", "failed"),
    ]


def test_who_has_a_webhook_by_now_gets_what_came_before_it(scene: Scene) -> None:
    scene.client("acme")
    scene.alerted("acme")
    with pytest.raises(InvalidValue, match="alert_id: 1: is of client 'acme', which has no webhook"):
        admin.resend_alerts(scene.settings, [1])
    with receiving() as receiver:
        admin.set_webhook(scene.settings, "acme", receiver.url)
        admin.resend_alerts(scene.settings, [1])
        scene.deliver(scene.worker())
    assert len(receiver.calls) == 1


def test_what_is_wrong_changes_nothing(scene: Scene) -> None:
    with receiving(410) as receiver:
        fail(scene, "acme", receiver=receiver)
        scene.client("globex")
        scene.alerted("globex")
        sql = "UPDATE alert SET kind = %s WHERE client_id = 'globex'"
        with scene.runtime.engine.begin() as connection:
            connection.exec_driver_sql(sql, (CORRUPT,))
        for asked, rule in (
            ([1, 99], "alert_id: 99: is not a known alert"),
            ([1, 0], "alert_id: 0: is not a known alert"),
            ([2**70], "is not a known alert"),
            ([1, 2], "alert_id: 2: is of the kind corrupt, which no client's webhook is told"),
            ([], "alert_id: None: is missing"),
        ):
            with pytest.raises(InvalidValue, match=rule):
                admin.resend_alerts(scene.settings, asked)
        with pytest.raises(InvalidValue, match="goes with neither"):
            admin.resend_alerts(scene.settings, [1], failed=True)
        with pytest.raises(InvalidValue, match="client_id: 'globex': has no webhook"):
            admin.resend_alerts(scene.settings, client_id="globex", failed=True)
        with pytest.raises(UnknownClient):
            admin.resend_alerts(scene.settings, client_id="nobody", failed=True)
    assert scene.rows("client_id, delivery") == [("acme", "failed"), ("globex", "none")]


def test_l9_attempts_of_what_is_resent_end_again(scene: Scene) -> None:
    with receiving(500) as receiver:
        scene.client("acme", url=receiver.url)
        scene.alerted("acme")
        worker = scene.worker()
        for _ in range(2):
            for _ in range(10):
                scene.deliver(worker)
                scene.clock.move(timedelta(hours=6).total_seconds())
            admin.resend_alerts(scene.settings, failed=True)
    assert len(receiver.calls) == 16


def test_the_command_says_how_many_and_what_is_wrong_in_one_line(shop: Terminal) -> None:
    shop.type("alerts", "resend", "7").refused(2, "alert_id: 7", "not a known alert")
    shop.type("alerts", "resend").refused(2, "--failed")
    shop.type("alerts", "resend", "--client", "acme").refused(2, "--failed")
    shop.type("alerts", "resend", "--client", "acme", "--failed").refused(2, "acme", "has no webhook")
    shop.type("alerts", "resend", "--client", "nobody", "--failed").refused(2, "nobody", "not a known client")
    assert shop.type("alerts", "resend", "--failed").out == "0 alerts go out again\n"
    assert shop.type("alerts", "resend", "--failed", "--json").json() == {"alert_ids": [], "more": False}
    assert shop.type("alerts", "list", "--failed", "--json").json() == []
    assert shop.type("alerts", "list", "--kind", "debt", "--json").json() == []
