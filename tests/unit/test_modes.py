"""A dry run refuses and charges nothing, whatever is wrong; a run without a hold is charged once (L3). On the twin."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import celery
import pytest

import billing
from billing import admin
from billing.admin.dry_runs import DryRuns, summed
from billing.core.errors import ClientInactive, InvalidValue, Recovering, Unreachable
from billing.core.settings import Settings
from billing.credits.terms import ClientState
from billing.credits.twin.buckets import Twin
from billing.observability.task_event import of_run
from billing.task.attachment import attachment_of
from billing.task.billable import Unhooked
from billing.task.outcome import Outcome
from billing.task.pending import Pending
from billing.task.usage import NotInARun
from billing.testing import BillingTwin
from billing.testing.runtime import Published, TwinRecords

Business = tuple[BillingTwin, celery.Celery]


def business(**settings: Any) -> Iterator[Business]:
    """Bill an app by a twin that sells pages at 5 credits each."""
    twin = BillingTwin(Settings(**settings))
    twin.price("page", 5)
    twin.price("kib", 1)
    with twin.billing():
        yield twin, billing.setup(celery.Celery("shop", broker="memory://", set_as_current=False))


@pytest.fixture
def dry() -> Iterator[Business]:
    """Run everything dry."""
    yield from business(dry_run=True)


@pytest.fixture
def metered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Business]:
    """Run without a hold while Redis is away; debts are paid when the test says so."""
    monkeypatch.setattr(Pending, "_start", lambda _: None)
    yield from business(on_redis_down="meter_only")


def capture(app: celery.Celery, body: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Declare a task that sells pages."""

    def pages(client_id: str | None, count: int = 1) -> int:
        return count if body is None else body()

    made: Any = app.task(shared=False, base=billing.BillableTask, **{"name": "shop.pages", "sku": "page", **options})
    return made(pages)


def redis_away(monkeypatch: pytest.MonkeyPatch, *verbs: str, error: type[Exception] = Unreachable) -> None:
    """Have calls of buckets get no answer."""

    def silent(*_: object, **__: object) -> None:
        raise error("Redis is away")

    for verb in verbs:
        monkeypatch.setattr(Twin, verb, silent)


def counted(twin: BillingTwin) -> list[DryRuns]:
    """Return what dry runs counted."""
    return [*summed(twin.runtime.twin.counts())]


def untouched(twin: BillingTwin, client_id: str, credits_: int) -> bool:
    """Whether a client has all that it was granted, and nothing is held."""
    balance = twin.balance(client_id)
    return (balance.available, balance.held, balance.spent, balance.owed) == (credits_, 0, 0, 0)


def test_a_dry_run_that_would_be_admitted_is_logged_at_no_cost_and_its_cost_counted(dry: Business) -> None:
    """Given credits, then nothing is held or taken, the event says what was used, and the count what it would cost."""
    twin, app = dry
    twin.client("acme", 100)
    task = capture(app, quantity=lambda client_id, count: count)

    assert task.apply(args=("acme", 3)).get() == 3

    (event,) = twin.events("acme")
    assert (event.mode, event.epoch, event.late, event.price_version) == ("dry_run", 0, False, 2)
    assert [(line.sku, line.quantity, line.credits, line.grants) for line in event.lines] == [("page", 3, 0, ())]
    assert untouched(twin, "acme", 100)
    assert counted(twin) == [DryRuns(task="shop.pages", runs=1, admitted=1, denied={}, credits=15)]


def nothing(_: BillingTwin) -> None:
    """Leave everything as it is."""


#: What is counted; who pays; the task's options; what is done before; whether the log gets an event.
REASONS: list[tuple[str, Any, dict[str, Any], Callable[[BillingTwin], Any], bool]] = [
    ("insufficient", "poor", {}, nothing, True),
    ("unknown_client", "nobody", {}, nothing, False),
    ("unknown_client", "nobody", {"sku": "gold"}, nothing, False),
    ("unknown_sku", "poor", {"sku": "gold"}, nothing, True),
    ("invalid_value", None, {}, nothing, False),
    ("invalid_value", "no such name", {}, nothing, False),
    ("invalid_value", "poor", {"quantity": lambda client_id, count: -1}, nothing, False),
    ("invalid_value", "poor", {"sku": lambda client_id, count: 1 / 0}, nothing, False),
    ("invalid_value", "poor", {"quantity": lambda client_id, count: count // 0}, nothing, False),
    ("suspended", "poor", {}, lambda twin: twin.terms("poor", state=ClientState.SUSPENDED), True),
    ("recovering", "poor", {}, lambda twin: twin.runtime.memory.restart(), True),
]


@pytest.mark.parametrize("case", REASONS)
def test_whatever_would_deny_it_a_dry_run_runs_and_is_counted(
    dry: Business,
    caplog: pytest.LogCaptureFixture,
    case: tuple[str, Any, dict[str, Any], Callable[[BillingTwin], Any], bool],
) -> None:
    """Given a delivery that would be denied, then it runs; one that the log would not take has no event."""
    reason, client_id, options, prepare, is_logged = case
    twin, app = dry
    twin.client("poor", 4)
    task = capture(app, **options)
    prepare(twin)

    assert task.apply(args=(client_id, 2)).get() == 2

    assert [event.mode for event in twin.events()] == (["dry_run"] if is_logged else [])
    (found,) = counted(twin)
    assert (found.runs, found.admitted, found.denied) == (1, 0, {reason: 1})
    (told,) = [record.getMessage() for record in caplog.records if "would have been denied" in record.message]
    assert "task shop.pages" in told
    if reason == "insufficient":
        assert "client poor, SKU page, required 5, available 4: insufficient" in told
    if reason != "recovering":
        assert untouched(twin, "poor", 4)


def test_a_dry_run_goes_on_while_redis_is_away(dry: Business, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given no Redis, then one call is waited for, the event is published, and the count is added when it is back."""
    twin, app = dry
    twin.client("acme", 100)
    redis_away(monkeypatch, "balance", "count", "outbox_depth", "reserve", "settle")
    task = capture(app)

    assert task.apply(args=("acme",)).get() == 1

    assert [event.mode for event in twin.events("acme")] == ["dry_run"]
    assert counted(twin) == []
    monkeypatch.undo()
    twin.advance(seconds=60)
    task.apply(args=("acme",)).get()
    task.apply(args=("acme",)).get()
    (found,) = counted(twin)
    assert (found.runs, found.admitted, found.denied) == (3, 2, {"unreachable": 1})


def test_an_addition_whose_answer_was_lost_counts_once(dry: Business, monkeypatch: pytest.MonkeyPatch) -> None:
    twin, app = dry
    twin.client("acme", 100)
    count = Twin.count

    def lost(self: Twin, *arguments: Any) -> None:
        count(self, *arguments)
        message = "the answer is lost"
        raise Unreachable(message)

    monkeypatch.setattr(Twin, "count", lost)
    task = capture(app)
    task.apply(args=("acme",)).get()
    monkeypatch.undo()
    twin.advance(seconds=60)
    attachment_of(app).lifecycle.pending.pay()
    attachment_of(app).lifecycle.pending.pay()
    assert counted(twin) == [DryRuns(task="shop.pages", runs=1, admitted=1, denied={}, credits=5)]


def test_a_dry_run_that_fails_has_no_event_and_one_that_is_retried_counts_once(dry: Business) -> None:
    """L3: what did not succeed has no row; attempts are one run."""
    twin, app = dry
    twin.client("acme", 100)

    def broken() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        capture(app, broken).apply(args=("acme",)).get()
    assert twin.events() == []

    @app.task(shared=False, name="shop.flaky", bind=True, base=billing.BillableTask, sku="page", max_retries=2)
    def flaky(self: billing.BillableTask, client_id: str) -> None:
        if self.request.retries < 2:
            raise self.retry(countdown=0)

    flaky.apply(args=("acme",)).get()
    (event,) = twin.events("acme")
    assert event.attempt == 3
    assert [(found.task, found.runs, found.credits) for found in counted(twin)] == [
        ("shop.flaky", 1, 5),
        ("shop.pages", 1, 0),
    ]


def test_what_a_dry_run_records_is_on_its_event_and_a_bad_quantity_fails_no_task(dry: Business) -> None:
    """Given good and bad usage, then the good is logged; outside a run recording raises as ever."""
    twin, app = dry
    twin.client("acme", 100)

    def body() -> int:
        billing.usage.record(4)
        billing.usage.record(7, sku="kib")
        billing.usage.record(-1)
        billing.usage.record(2, sku="No SKU")
        billing.usage.record(9, sku="gold")
        return 1

    capture(app, body).apply(args=("acme",)).get()
    (event,) = twin.events("acme")
    assert [(line.sku, line.quantity) for line in event.lines] == [("page", 4), ("kib", 7), ("gold", 9)]
    # What has no price has no cost: then it is not known at all.
    assert [(found.runs, found.credits) for found in counted(twin)] == [(1, 0)]
    with pytest.raises(NotInARun):
        billing.usage.record(1)


def test_a_task_may_be_billed_in_a_dry_app_and_dry_in_a_billed_one(dry: Business) -> None:
    twin, app = dry
    twin.client("acme", 100)
    capture(app, dry_run=False).apply(args=("acme",)).get()
    assert (twin.charged("acme"), twin.events("acme")[0].mode) == (5, None)
    for other, its_app in business():
        other.client("acme", 1)
        capture(its_app, dry_run=True).apply(args=("acme",)).get()
        assert untouched(other, "acme", 1)
        with pytest.raises(billing.InsufficientCredits), billing.reserve("acme", "page"):
            pass


def test_a_dry_run_whose_gate_was_taken_away_is_not_charged_either(dry: Business) -> None:
    """Given `before_start` set on the bound class, which charges a billed task late, then a dry one costs nothing."""
    twin, app = dry
    twin.client("acme", 100)
    task = capture(app)
    app.finalize()
    type(task._get_current_object()).before_start = lambda *_: None
    task.apply(args=("acme",)).get()
    assert untouched(twin, "acme", 100)


def test_a_block_is_dry_as_well(dry: Business) -> None:
    """Given no credits, then the block runs, once more for the same key, and the log has it once."""
    twin, _ = dry
    twin.client("acme")
    for _ in range(2):
        with billing.reserve("acme", "page", 2, key="job") as run:
            run.record(3)
        assert (run.outcome, run.credits_charged, run.credits_held) == (Outcome.DRY_RUN, 0, 0)
    with pytest.raises(RuntimeError), billing.reserve("acme", "page"):
        raise RuntimeError
    (event,) = twin.events("acme")
    assert [(line.quantity, line.credits) for line in event.lines] == [(3, 0)]
    assert untouched(twin, "acme", 0)


def test_map_is_let_go_in_a_dry_run_alone(dry: Business) -> None:
    _, app = dry
    task, billed = capture(app), capture(app, name="shop.billed", dry_run=False)
    for name, arguments in (("map", ([],)), ("starmap", ([],)), ("chunks", ([], 1))):
        getattr(task, name)(*arguments)
        with pytest.raises(Unhooked, match=name):
            getattr(billed, name)(*arguments)


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


def test_the_counts_of_a_fleet_are_shown_by_task() -> None:
    counts = {"admitted:a:b": 3, "insufficient:a:b": 2, "suspended:a:b": 1, "credits:a:b": 70, "unknown_sku:z": 4}
    assert summed(counts) == [
        admin.DryRuns(task="a:b", runs=6, admitted=3, denied={"insufficient": 2, "suspended": 1}, credits=70),
        admin.DryRuns(task="z", runs=4, admitted=0, denied={"unknown_sku": 4}, credits=0),
    ]


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
