"""A dry run refuses and charges nothing, whatever is wrong; what it would have cost is counted. On the twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import billing
from billing import admin
from billing.admin.dry_runs import DryRuns, summed
from billing.core.errors import Unreachable
from billing.credits.terms import ClientState
from billing.credits.twin.buckets import Twin
from billing.task.attachment import attachment_of
from billing.task.billable import Unhooked
from billing.task.outcome import Outcome
from billing.task.usage import NotInARun
from billing.testing import BillingTwin
from tests.unit.modes.shop import Business, business, capture, counted, redis_away, untouched


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


def test_the_counts_of_a_fleet_are_shown_by_task() -> None:
    counts = {"admitted:a:b": 3, "insufficient:a:b": 2, "suspended:a:b": 1, "credits:a:b": 70, "unknown_sku:z": 4}
    assert summed(counts) == [
        admin.DryRuns(task="a:b", runs=6, admitted=3, denied={"insufficient": 2, "suspended": 1}, credits=70),
        admin.DryRuns(task="z", runs=4, admitted=0, denied={"unknown_sku": 4}, credits=0),
    ]
