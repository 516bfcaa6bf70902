"""The loops of a fulfillment worker tell of what they did when it is done, and of nothing that they only tried."""

from __future__ import annotations

from datetime import timedelta

import pytest

from billing.alerts.announcing import CLAIM, Announcer
from billing.core.errors import Unreachable
from billing.task.observer import Called
from billing.task.runtime import Runtime
from tests.integration.alerting import Scene
from tests.integration.consuming import until_rows
from tests.integration.reaping import Scene as Reaping
from tests.integration.recovering import Business
from tests.observing import Noted
from tests.webhooks import receiving

pytestmark = pytest.mark.integration


def noted(runtime: Runtime) -> Noted:
    """Have what a process does noted."""
    observer = Noted()
    vars(runtime)["observer"] = observer
    return observer


@pytest.mark.parametrize(
    ("status", "called"),
    [
        (200, [Called.DELIVERED]),
        (410, [Called.GIVEN_UP]),
        (500, [Called.FAILED] * 7 + [Called.GIVEN_UP]),
    ],
)
def test_each_call_of_a_webhook_is_told_of_with_what_became_of_it(
    scene: Scene, status: int, called: list[Called]
) -> None:
    observer = noted(scene.runtime)
    with receiving(status) as receiver:
        scene.client("acme", url=receiver.url)
        scene.alerted("acme")
        worker = scene.worker()
        for _ in range(10):
            scene.deliver(worker)
            scene.clock.move(timedelta(hours=6).total_seconds())
        assert len(receiver.calls) == len(called)
    assert observer.told == [("called", each) for each in called]


def test_an_alert_is_told_of_once_also_when_its_signal_is_sent_twice(scene: Scene) -> None:
    """Given a worker so slow that its claim runs out, then another one sends the signal, too, and one of them tells."""
    observer = noted(scene.runtime)
    scene.client("acme")
    scene.alerted("acme")
    slow, other = Announcer(scene.runtime), Announcer(scene.runtime)
    assert slow.step() == 1
    assert observer.told == []
    scene.clock.move(CLAIM.total_seconds())
    assert other.step() == 1
    other.finish()
    slow.finish()
    assert (slow.told, other.told) == (1, 1)
    assert observer.told == [("alerted", "low_balance")]


def test_a_rebuild_tells_of_its_buckets(business: Business) -> None:
    observer = noted(business.runtime)
    for client_id in ("acme", "bolt"):
        business.client(client_id, 50)
    with business.consuming():
        business.hold("acme", 20, "c")
        business.settle("acme", 12, "c")
        until_rows(business.settings, 1)
        business.lose()
        business.rebuilder.step()
    assert sum(told[1] for told in observer.of("rebuilt")) == 2


def test_a_reaper_whose_settle_got_no_answer_at_first_tells_of_it_once(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second try finds the run settled, by this very settlement; one that somebody else has charged is not told."""
    scene = Reaping(redis_url)
    settle = scene.buckets.settle
    scene.due("one", actual=7)
    monkeypatch.setattr(scene.buckets, "settle", lambda settlement: (settle(settlement), settle(settlement))[1])
    scene.sweep()
    assert scene.told == [7]
    monkeypatch.setattr(scene.buckets, "settle", settle)
    scene.sweep()
    assert scene.told == [7]


def test_a_reaper_that_redis_does_not_answer_tells_of_nothing(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Reaping(redis_url)
    scene.due("one")

    def silent(_: object) -> None:
        raise Unreachable("away")

    monkeypatch.setattr(scene.buckets, "settle", silent)
    with pytest.raises(Unreachable):
        scene.sweep()
    assert scene.told == []
