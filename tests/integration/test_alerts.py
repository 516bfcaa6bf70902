"""From the stream to the row and the signal: nothing is lost, nothing is told for no reason."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy

import billing
from billing.alerts import announcing, receivers
from billing.alerts.announcing import CLAIM, Announcer, announce
from billing.alerts.delivering import deliver_pending
from billing.alerts.receivers import CALL_SECONDS_MAX
from billing.alerts.recording import prune, record, record_and_announce
from billing.alerts.statements import ANNOUNCING
from billing.core.errors import Unreachable
from billing.credits.values import ReserveOutcome
from tests.hearing import hearing
from tests.integration.alerting import Scene, hanging
from tests.waiting import wait_until
from tests.webhooks import receiving

pytestmark = pytest.mark.integration


@pytest.fixture
def heard() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Listen to both signals."""
    with hearing(billing.alerts.low_balance, billing.alerts.exhausted) as heard:
        yield heard


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


def test_what_one_worker_is_claiming_another_neither_claims_nor_waits_for(scene: Scene) -> None:
    """L9, L10: Given a claim that is not committed, when the next worker looks, then it takes the other client's."""
    for client_id in ("acme", "globex"):
        scene.client(client_id)
    scene.alerted("acme", "globex")
    now = scene.clock.now()
    given = {"now": now, "claimed_until": now + CLAIM, "busy": [], "count": 1}
    with scene.runtime.engine.begin() as first, scene.runtime.engine.begin() as second:
        second.execute(sqlalchemy.text("SET LOCAL lock_timeout = '20s'"))  # instead of waiting for ever
        claimed = [found.execute(ANNOUNCING, given).mappings().one()["client_id"] for found in (first, second)]
    assert sorted(claimed) == ["acme", "globex"]


def test_l10_a_receiver_that_takes_its_time_keeps_no_row_from_others(scene: Scene) -> None:
    """Given a receiver that is being called, then its alert can be delivered and closed, and nobody announces twice."""
    free: list[Any] = []

    def slow(**_: Any) -> None:
        with scene.runtime.engine.begin() as connection:
            rows = connection.execute(sqlalchemy.text("SELECT alert_id FROM alert FOR UPDATE NOWAIT")).scalars()
            free.append((len([*rows]), announce(scene.runtime)))

    scene.client("acme")
    scene.alerted("acme")
    billing.alerts.low_balance.connect(slow)
    try:
        assert announce(scene.runtime) == 1
    finally:
        billing.alerts.low_balance.disconnect(slow)
    assert free == [(1, 0)]
    assert announce(scene.runtime) == 0


def test_l10_a_receiver_that_hangs_for_one_client_delays_neither_other_clients_nor_other_receivers(
    scene: Scene, heard: list[tuple[str, dict[str, Any]]]
) -> None:
    """Given a receiver that never returns for acme, then all others are told; acme's later alert waits a bound."""
    clients = ("acme", "globex", "initech")
    for client_id in clients:
        scene.client(client_id)
    announcer = Announcer(scene.runtime)
    with hanging(billing.alerts.low_balance, "acme") as called:
        scene.alerted(*clients)
        # The hung call is under way before its receiver's thread has come to say so.
        wait_until(lambda: announcer.step() == 1 and len(called) == len(heard) == 3, "only acme's is under way")
        assert sorted(named["client_id"] for _, named in heard) == sorted(called) == [*clients]
        scene.take("acme", 500)
        scene.take("globex", 500)
        record(scene.runtime)
        wait_until(lambda: announcer.step() == 1 and len(heard) == 4, "globex is told again")
        scene.clock.move(CALL_SECONDS_MAX)
        wait_until(lambda: announcer.step() == 0, "acme is not waited for")
    assert [named["client_id"] for name, named in heard if name == "billing_exhausted"] == ["globex", "acme"]
    assert announce(scene.runtime) == 0


def test_l9_a_receiver_that_always_hangs_has_so_many_threads_at_most_and_delays_nobody(
    scene: Scene, heard: list[tuple[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given all its calls hang, then it is not called again, the log says so, and the others are told at once."""
    monkeypatch.setattr(receivers, "CALLS_MAX", 2)
    clients = ("acme", "globex", "initech")
    for client_id in clients:
        scene.client(client_id)
    announcer = Announcer(scene.runtime)
    with hanging(billing.alerts.low_balance) as called:
        scene.alerted(*clients)
        wait_until(lambda: announcer.step() == 3 and len(heard) == 3 and len(called) == 2, "the other one is told")
        scene.clock.move(CALL_SECONDS_MAX)
        wait_until(lambda: announcer.step() == 0, "none is waited for")
        assert len(called) == 2


def test_what_is_recorded_is_announced_also_while_redis_is_away(
    scene: Scene, heard: list[tuple[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.client("acme")
    scene.alerted("acme")

    def away(*, count: int) -> None:
        raise Unreachable(f"billing_redis_url: 'away': {count}")

    with monkeypatch.context() as patch:
        patch.setattr(scene.runtime.buckets, "alerts", away)
        with pytest.raises(Unreachable):
            record_and_announce(scene.runtime, announcer := Announcer(scene.runtime))
    announcer.finish()
    assert len(heard) == 1


def test_a_signal_that_was_not_noted_as_sent_is_sent_again(
    scene: Scene, heard: list[tuple[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a worker that dies after the signal and before its commit, then the next one sends it again."""
    scene.client("acme")
    scene.alerted("acme")

    with monkeypatch.context() as patch:
        patch.setattr(announcing, "ANNOUNCED", sqlalchemy.text("SELECT 1 / (:now - :now), :alerts"))
        with pytest.raises(sqlalchemy.exc.DBAPIError):
            announce(scene.runtime)
    assert (len(heard), announce(scene.runtime)) == (1, 0), "its claim lasts"
    scene.clock.move(CLAIM.total_seconds())
    assert announce(scene.runtime) == 1
    assert len({named["alert_id"] for _, named in heard}) == 1
    assert len(heard) == 2


def test_beats_pass_does_all_of_it(
    scene: Scene, heard: list[tuple[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given no loop that runs, when beat's task does, then rows, signals and webhooks of one client come out of it."""
    monkeypatch.setattr("billing.alerts.delivering.ANNOUNCING_SECONDS", 60.0)
    with receiving() as receiver:
        scene.client("acme", url=receiver.url)
        scene.take("acme", 90)
        scene.take("acme", 500)
        deliver_pending(scene.runtime)
        deliver_pending(scene.runtime)
    assert [name for name, _ in heard] == ["billing_low_balance", "billing_exhausted"]
    assert [call.message["type"] for call in receiver.calls] == ["billing.low_balance", "billing.exhausted"]
    assert [row[1] for row in scene.rows()] == ["delivered"] * 2


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
