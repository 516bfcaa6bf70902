"""A run without a hold, while Redis is away, is charged once by its event, and fails nobody else (L3). On the twin."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import billing
from billing.core.errors import ClientInactive, InvalidValue, Recovering, Unreachable
from billing.observability.task_events.task_event import of_run
from billing.task.attachment import attachment_of
from billing.task.outcome import Outcome
from billing.task.pending import Pending
from billing.testing.runtime import Published, TwinRecords
from tests.unit.modes.shop import Business, business, capture, redis_away


def test_without_redis_a_metered_run_has_no_hold_and_is_charged(
    metered: Business, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L3: Given no Redis, then the task runs, and its direct event says so; twice delivered it is one row."""
    twin, app = metered
    twin.client("acme", 4)
    redis_away(monkeypatch, "reserve")
    # Nothing else is asked of Redis: this would fail the task.
    redis_away(monkeypatch, "settle", "stage", "release", "renew_each", error=AssertionError)
    task = capture(app, lambda: billing.usage.record(6))

    for _ in range(2):
        task.apply(args=("acme",), task_id="one").get()

    (event,) = twin.events("acme")
    assert (event.mode, event.epoch, event.late) == ("meter_only", 0, False)
    assert [(line.quantity, line.credits) for line in event.lines] == [(6, 30)]
    assert not twin.runtime.twin.held("acme")
    assert not attachment_of(app).lifecycle.renewal._runs


@pytest.mark.parametrize("policy", ["setting", "task"])
def test_meter_only_is_a_policy_of_the_task_or_of_the_setting(monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
    chosen: dict[str, Any] = {"on_redis_down": "meter_only"}
    settings, options = (chosen, {}) if policy == "setting" else ({}, chosen)
    monkeypatch.setattr(Pending, "_start", lambda _: None)
    for twin, app in business(**settings):
        twin.client("acme", 100)
        redis_away(monkeypatch, "reserve")
        other = "fail" if policy == "setting" else None
        assert capture(app, **options).apply(args=("acme",)).get() == 1
        with pytest.raises(Unreachable):
            capture(app, name="shop.other", on_redis_down=other).apply(args=("acme",)).get()
        assert len(twin.events("acme")) == 1


def test_l6_a_shard_that_recovers_is_waited_for_by_a_metered_task_too(metered: Business) -> None:
    """Given a Redis that answers and is not trusted, then nothing is admitted."""
    twin, app = metered
    twin.client("acme", 100)
    twin.runtime.memory.restart()
    with pytest.raises(Recovering):
        capture(app).apply(args=("acme",)).get()
    assert twin.events() == []


def test_a_metered_run_is_refused_for_a_client_that_may_not_start(
    metered: Business, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given no Redis, then PostgreSQL says who may start; where it is away too, nobody is hindered."""
    twin, app = metered
    twin.client("acme", 100)
    redis_away(monkeypatch, "reserve")
    task = capture(app)
    with pytest.raises(billing.UnknownClient):
        task.apply(args=("nobody",)).get()

    def suspended(_: TwinRecords, client_id: str) -> None:
        raise ClientInactive(client_id, "suspended")

    monkeypatch.setattr(TwinRecords, "check_active", suspended)
    with pytest.raises(ClientInactive):
        task.apply(args=("acme",)).get()
    assert twin.events() == []

    def away(_: TwinRecords, client_id: str) -> None:
        raise Unreachable(client_id)

    monkeypatch.setattr(TwinRecords, "check_active", away)
    task.apply(args=("acme",)).get()
    assert twin.charged("acme") == 5


def test_a_metered_run_whose_id_the_log_would_not_take_is_refused(
    metered: Business, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin, app = metered
    twin.client("acme", 100)
    redis_away(monkeypatch, "reserve")
    ahead = {"billing_at": 1_000 * round(twin.clock.now().timestamp()) + 3 * 86_400_000}
    with pytest.raises(InvalidValue, match="ahead"):
        capture(app).apply(args=("acme",), headers=ahead).get()


def test_a_metered_run_that_fails_or_is_retried_owes_nothing(
    metered: Business, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L3: Given a failure, then there is no event; a block says its mode."""
    twin, app = metered
    twin.client("acme", 100)
    redis_away(monkeypatch, "reserve", "release", "renew")

    def broken() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        capture(app, broken).apply(args=("acme",)).get()
    assert twin.events() == []
    with billing.reserve("acme", "page", 2) as run:
        assert run.outcome is Outcome.HELD
    assert (run.outcome, run.credits_charged) == (Outcome.METER_ONLY, 10)
    with pytest.raises(RuntimeError), billing.reserve("acme", "page") as failed:
        raise RuntimeError
    assert (failed.outcome, failed.credits_charged) == (Outcome.METER_ONLY, 0)
    assert twin.charged("acme") == 10


def test_l3_an_event_that_no_broker_takes_is_published_later_or_logged_whole(
    metered: Business, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Given neither Redis nor broker, then the event is kept; a process that ends without either says what it was."""
    twin, app = metered
    twin.client("acme", 100)
    redis_away(monkeypatch, "reserve")
    task, lifecycle = capture(app), attachment_of(app).lifecycle

    def away(*_: object) -> None:
        message = "the broker is away"
        raise Unreachable(message)

    with monkeypatch.context() as broken:
        broken.setattr(Published, "publish_batch", away)
        task.apply(args=("acme",)).get()
        lifecycle.pending.pay()
        assert twin.events() == []
        caplog.clear()
        lifecycle.events.close(0.0)
        (told,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert '"mode":"meter_only"' in told
    lifecycle.pending.pay()
    assert [event.mode for event in twin.events()] == ["meter_only"]


def test_l3_without_prices_at_the_end_the_charge_of_a_metered_run_waits(
    metered: Business, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin, app = metered
    twin.client("acme", 100)
    redis_away(monkeypatch, "reserve")
    pending = attachment_of(app).lifecycle.pending
    with monkeypatch.context() as broken:

        def priceless() -> int:
            def away() -> None:
                message = "PostgreSQL is away"
                raise Unreachable(message)

            broken.setattr(twin.runtime.price_list, "get", away)
            return 1

        capture(app, priceless).apply(args=("acme",)).get()
        pending.pay()
        # It says nothing of Redis: what is owed there is tried in its turn (L10).
        assert (twin.events(), pending._silent) == ([], frozenset())
    pending.pay()
    assert twin.charged("acme") == 5


def test_monitors_are_told_the_mode_and_that_nothing_was_reserved(
    metered: Business, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a metered run that failed or succeeded, then Flower has its outcome, and while it goes on nothing."""
    twin, _ = metered
    twin.client("acme", 100)
    redis_away(monkeypatch, "reserve")
    with billing.reserve("acme", "page", 2) as block:
        assert of_run(block._run) is None
    told = {
        "billing_client": "acme",
        "billing_sku": "page",
        "billing_reserved": 0,
        "billing_outcome": "meter_only",
        "billing_charged": 10,
    }
    assert of_run(block._run) == told
    with pytest.raises(RuntimeError), billing.reserve("acme", "page") as failed:
        raise RuntimeError
    assert of_run(failed._run) == told | {"billing_charged": 0}
