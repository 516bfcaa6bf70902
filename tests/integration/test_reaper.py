"""What the reaper makes of holds whose lease ran out: each by its task's result, none in the way of another (L4, L5).

No test waits for a lease: the lease index is told that a hold is due, and that the shard was swept just now.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta

import celery
import pytest
import redis
from celery import states
from kombu.exceptions import DecodeError
from redis.backoff import NoBackoff
from redis.retry import Retry

import billing
from billing.core.clock import from_milliseconds, to_milliseconds
from billing.core.credits import CREDITS_MAX
from billing.core.errors import Unreachable
from billing.core.shards import shard_of
from billing.credits.values import Overdue, Settlement, SettleReply
from billing.events.usage_event import Draft, UsageLine, encode_draft
from billing.integration.services import make_reaper
from billing.task.reaper import StoredResult
from billing.task.stored_results import stored_at
from tests.integration.reaping import CLIENTS, PRICED_AT, SHARDS, SUCCESS, Scene

pytestmark = pytest.mark.integration

YEAR = timedelta(days=366)


@pytest.fixture
def scene(redis_url: str) -> Scene:
    """Return a scene on an empty server."""
    return Scene(redis_url)


def test_l5_a_success_is_charged_and_anything_else_given_back(scene: Scene) -> None:
    scene.due("done", actual=7)
    scene.due("lost")
    scene.result = lambda task_id: SUCCESS if task_id == "done" else StoredResult(state=states.STARTED)
    assert scene.sweep() == 2
    assert scene.spent() == (7, 0)
    assert scene.published == [CLIENTS[0]]
    assert scene.told == [7, None]


def test_l5_a_run_that_waits_for_its_next_attempt_keeps_its_hold(scene: Scene) -> None:
    """Given a stored result that says RETRY, when its lease is over, then its hold has another one, up to its age."""
    run = scene.due("waits")
    scene.result = lambda _: StoredResult(state=states.RETRY)
    assert scene.sweep() == 0
    scene.assert_extended(run)
    assert scene.spent() == (0, 10)


def test_l10_a_hold_whose_settle_fails_in_an_unforeseen_way_keeps_no_other_from_its_turn(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bad, real = scene.due("bad"), scene.buckets.settle
    scene.due("good")

    def settle(settlement: Settlement) -> SettleReply:
        if settlement.run_id == bad:
            message = "nobody thought of this"
            raise RuntimeError(message)
        return real(settlement)

    monkeypatch.setattr(scene.buckets, "settle", settle)
    assert scene.sweep() == 1
    assert "nobody thought of this" in caplog.text
    scene.assert_extended(bad)


def test_l5_one_bad_hold_does_not_keep_the_others_from_their_turn(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """Given sweeps of one hold and an oldest hold that no settle understands, then the next is settled all the same."""
    scene.reaper = scene.make_reaper(sweep_batch=1)
    other = next(name for name in map(str, range(1_000, 1_100)) if shard_of(name, SHARDS) == 0)
    scene.buckets.open_client(other)
    scene.buckets.grant(other, 1, 100)
    bad = scene.due("bad", client=other)
    scene.due("good")
    scene.due("elsewhere", client=CLIENTS[3])
    scene.redis.set(f"{{billing:0}}:bucket:{other}", "no bucket")
    assert scene.sweep() == 1, "other shards are swept in the same sweep"
    assert str(bad) in caplog.text
    assert scene.sweep() == 1
    assert scene.spent() == (10, 0)
    scene.assert_extended(bad)


def test_l5_one_bad_shard_does_not_keep_the_others_from_their_turn(scene: Scene) -> None:
    scene.due("good", client=CLIENTS[2])
    scene.redis.set("{billing:1}:leases", "no index")
    assert scene.sweep() == 1
    assert scene.spent(CLIENTS[2]) == (10, 0)


def test_l5_each_sweep_begins_at_another_shard(scene: Scene) -> None:
    for turn in range(SHARDS + 1):
        for client in CLIENTS:
            scene.due(f"{turn}", client=client)
        scene.published.clear()
        assert scene.sweep() == SHARDS
        assert scene.published == [CLIENTS[(turn + step) % SHARDS] for step in range(SHARDS)]


def test_l5_a_server_that_is_away_ends_the_sweep(scene: Scene) -> None:
    scene.due("waiting")

    def cut(_: str) -> StoredResult:
        scene.redis.connection_pool = redis.ConnectionPool(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 0))
        return SUCCESS

    scene.result = cut
    with pytest.raises(Unreachable):
        scene.sweep()


def test_l10_a_shard_that_nobody_answers_for_does_not_keep_the_others_from_their_turn(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Given a dead node of a cluster, then the sweep of the other shards does not fail, which would pause them all."""
    overdue = scene.buckets.overdue

    def answered(shard: int, count: int) -> Overdue:
        if shard == 0:
            message = "billing_redis_url: 'redis+cluster://n:1': the server does not answer (TimeoutError)"
            raise Unreachable(message)
        return overdue(shard, count)

    monkeypatch.setattr(scene.buckets, "overdue", answered)
    monkeypatch.setattr(scene.buckets, "node_of", lambda shard: f"n{shard}:1")
    scene.reaper = scene.make_reaper()
    runs = [scene.due("task", client=client) for client in CLIENTS]
    assert scene.sweep() == SHARDS - 1
    assert [*scene.leases()] == [runs[0]]
    assert "shard 0 cannot be swept" in caplog.text


def test_l6_a_shard_that_recovers_meanwhile_is_left_for_later(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    run = scene.due("done")

    def close(_: str) -> StoredResult:
        scene.buckets.close(0)
        return SUCCESS

    scene.result = close
    with caplog.at_level(logging.INFO):
        assert scene.sweep() == 0
    assert "is settled" not in caplog.text
    assert scene.published == []
    scene.buckets.verify(0, expected=None)
    scene.result = lambda _: SUCCESS
    assert list(scene.leases()) == [run]
    assert scene.sweep() == 1


def test_l4_a_finished_run_of_a_client_without_a_bucket_is_kept_at_any_age(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    run = scene.due("done")
    scene.redis.rename(f"{{billing:0}}:bucket:{CLIENTS[0]}", "{billing:0}:away")
    scene.clock.ahead = YEAR
    assert scene.sweep() == 0
    scene.assert_extended(run)
    assert f"client {CLIENTS[0]} has no bucket" in caplog.text
    assert scene.published == []


@pytest.mark.parametrize(
    ("actual", "lines", "reason"),
    [
        (CREDITS_MAX, b"", "more than can be counted"),
        (CREDITS_MAX + 1, b"", f"credits: {CREDITS_MAX + 1}: must be at most"),
        (10, b"[]", "its draft cannot be read"),
    ],
)
def test_l4_a_run_that_cannot_be_charged_is_kept_and_then_given_up_with_all_that_a_correction_needs(
    scene: Scene, caplog: pytest.LogCaptureFixture, actual: int, lines: bytes, reason: str
) -> None:
    scene.due("before")
    assert scene.sweep() == 1
    run = scene.due("done", actual=actual, lines=lines)
    scene.result = lambda _: StoredResult(state=states.SUCCESS, stored_at=datetime.now(UTC))
    draft = scene.buckets.held(CLIENTS[0])[0].lines
    assert scene.sweep() == 0
    scene.assert_extended(run)
    assert reason in caplog.text
    assert "UNCHARGED" not in caplog.text

    scene.redis.zadd("{billing:0}:leases", {run.hex: 1})
    scene.clock.ahead = YEAR
    assert scene.sweep() == 1
    assert scene.spent() == (10, 0)
    (line,) = [record.getMessage() for record in caplog.records if "UNCHARGED" in record.getMessage()]
    assert all(part in line for part in (str(run), f"client {CLIENTS[0]}", "held 10", repr(draft), reason))


@pytest.mark.parametrize(
    ("after_ms", "charged"), [(0, True), (5_000, True), (-1_000, True), (-1_001, False), (-86_400_000, False)]
)
def test_l4_only_a_success_of_this_submission_is_charged(scene: Scene, after_ms: int, charged: bool) -> None:  # noqa: FBT001
    """Given a success stored before the run's first reserve, then it was another submission of the same task id."""
    scene.due("again")
    scene.result = lambda _: StoredResult(state=states.SUCCESS, stored_at=from_milliseconds(PRICED_AT + after_ms))
    assert scene.sweep() == 1
    assert scene.spent() == (10 if charged else 0, 0)


def test_l3_a_success_from_before_its_hold_was_taken_over_is_charged(scene: Scene) -> None:
    """Given a success, and a second attempt that took the hold over and died, then its younger draft is charged."""
    later = to_milliseconds(datetime.now(UTC) + timedelta(hours=1))
    line = UsageLine(sku="page", quantity=1, credits=10)
    scene.due("twice", lines=encode_draft(Draft(priced_at=later, lines=(line,))))
    scene.result = lambda _: StoredResult(state=states.SUCCESS, stored_at=datetime.now(UTC))
    assert scene.sweep() == 1
    assert scene.spent() == (10, 0)


@pytest.mark.parametrize("error", [KeyError("status"), TypeError("no record"), DecodeError("no JSON")])
def test_l10_a_result_that_nobody_can_read_does_not_hide_others(
    scene: Scene, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """Given one record that is none, then its own run is kept for now, and the next is charged in the same sweep."""
    spoiled = scene.due("spoiled")
    scene.due("good")

    def read(task_id: str) -> StoredResult:
        if task_id == "spoiled":
            raise error
        return SUCCESS

    scene.result = read
    assert scene.sweep() == 1
    assert scene.spent() == (10, 10)
    scene.assert_extended(spoiled)
    assert f"the stored result of run {spoiled} is none" in caplog.text


def test_l5_a_result_backend_that_is_away_is_asked_once_in_a_sweep(scene: Scene) -> None:
    """Given three holds on two shards, when the first result cannot be read, then none is asked for nor expired."""
    runs = [scene.due("a"), scene.due("b"), scene.due("c", client=CLIENTS[1])]

    def away(_: str) -> StoredResult:
        raise OSError

    scene.result = away
    assert scene.sweep() == 0
    assert scene.asked == ["a"]
    for run in runs:
        scene.assert_extended(run)

    scene.redis.zadd("{billing:1}:leases", {runs[2].hex: 1})
    scene.result = lambda _: SUCCESS
    assert scene.sweep() == 1, "the next sweep asks again"
    assert scene.asked == ["a", "c"]


@pytest.mark.parametrize(
    ("date_done", "expected"),
    [
        ("2026-05-01T10:00:00+00:00", datetime(2026, 5, 1, 10, tzinfo=UTC)),
        ("2026-05-01T12:00:00.5+02:00", datetime(2026, 5, 1, 10, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-05-01T10:00:00", datetime(2026, 5, 1, 10, tzinfo=UTC)),
        (datetime(2026, 5, 1, 10), datetime(2026, 5, 1, 10, tzinfo=UTC)),  # noqa: DTZ001 - as SQL backends answer
        ("yesterday", None),
        (None, None),
        (1, None),
    ],
)
def test_the_time_of_a_result_is_read_in_every_form_that_backends_give(
    date_done: object, expected: datetime | None
) -> None:
    assert stored_at(date_done) == expected


def test_l4_the_time_of_a_result_comes_from_the_apps_backend(scene: Scene, redis_url: str, result_url: str) -> None:
    """Given a task that succeeded after its first reserve and one a day before, then only the first is charged."""
    app = celery.Celery("reaped", broker="memory://", backend=result_url)
    app.conf.update(billing_redis_url=redis_url, billing_broker_url="memory://", billing_shards=SHARDS)
    billing.setup(app)
    with redis.Redis.from_url(result_url) as client:
        for task_id, age in (("now", timedelta(0)), ("before", timedelta(days=1))):
            scene.due(task_id)
            meta = {"status": "SUCCESS", "result": None, "date_done": (datetime.now(UTC) - age).isoformat()}
            client.set(f"celery-task-meta-{task_id}", json.dumps(meta))
    scene.reaper = make_reaper(app)
    assert scene.sweep() == 2
    assert scene.spent() == (10, 0)
