"""Who counts is told of each charge once, when it is made, and of how each delivery ended (L3)."""

from __future__ import annotations

from typing import Any

import celery
import pytest
from celery.app.task import Context
from celery.exceptions import Ignore
from celery.states import FAILURE, IGNORED, RETRY

from billing.core.errors import InsufficientCredits, Unreachable
from billing.credits.values import ReserveOutcome, SettleOutcome, SettleReply
from billing.observability.task_events.task_event import OUTCOME_FIELD, of_refusal, of_run
from billing.task.observer import Published, ended_as
from billing.task.outcome import Outcome
from billing.task.park import Parked
from billing.task.pending import Pending
from billing.task.publishing import Events
from billing.task.run import Run
from billing.testing import BillingTwin
from tests.observing import Noted
from tests.unit.modes.shop import business, capture, redis_away
from tests.unit.selling import selling_pages
from tests.unit.test_lifecycle import Answers, lifecycle, run
from tests.unit.test_publishing import Broker, broker, events, pending

__all__ = ["broker", "events", "pending", "run"]

EXHAUSTED = InsufficientCredits("acme", "page", 5, 1)


def noted(twin: BillingTwin) -> Noted:
    """Have what a twin bills noted."""
    observer = Noted()
    vars(twin.runtime)["observer"] = observer
    return observer


def test_a_reserve_and_a_charge_are_told_once_each_and_a_failure_charges_nothing(app: celery.Celery) -> None:
    """Eager calls are charged, and are nobody's delivery."""

    def fails() -> None:
        raise ValueError

    with selling_pages() as twin:
        twin.client("acme", 10)
        observer = noted(twin)
        sells = capture(app)
        sells.apply(args=("acme",)).get()
        capture(app, fails, name="shop.fails").apply(args=("acme",))
        sells.apply(args=("acme",)).get()
        sells.apply(args=("acme",))
    assert [told[1] for told in observer.of("reserved")] == [ReserveOutcome.HELD] * 3 + [ReserveOutcome.INSUFFICIENT]
    assert observer.of("charged", "published", "ended") == [("charged", 5), ("published", Published.SENT, 1)] * 2


def test_a_dry_run_makes_an_event_that_charges_nothing(app: celery.Celery) -> None:
    for twin, shop in business(dry_run=True):
        twin.client("acme", 1)
        observer = noted(twin)
        sells = capture(shop)
        for client_id in ("acme", "nobody"):
            sells.apply(args=(client_id,)).get()
        assert observer.of("charged", "reserved") == [("charged", 0, None)]
        assert len(twin.events()) == 1


def test_a_metered_run_is_told_as_unreachable_and_as_a_charge(monkeypatch: pytest.MonkeyPatch) -> None:
    for twin, shop in business(on_redis_down="meter_only"):
        twin.client("acme", 100)
        observer = noted(twin)
        redis_away(monkeypatch, "reserve")
        capture(shop).apply(args=("acme",)).get()
        assert observer.of("charged", "reserved") == [("reserved", None), ("charged", 5)]


@pytest.mark.parametrize("own", [True, False])
def test_an_answer_that_was_lost_is_one_charge_and_anothers_charge_is_none(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    own: bool,  # noqa: FBT001
) -> None:
    """Given settles without an answer, then the charge is told once it is known to be made, and by whom."""
    answers: Any = Answers(Unreachable("away"), Unreachable("away"))
    cycle, observer = lifecycle(answers, monkeypatch), Noted()
    vars(cycle.runtime)["observer"] = observer
    cycle.succeed(run)
    cycle.pending.pay()
    assert observer.of("charged") == []
    assert observer.of("owes")[-1] == ("owes", 1)
    settlement = run.settlement_id if own else "another"
    answers.settle = lambda _: SettleReply(outcome=SettleOutcome.ALREADY, settlement_id=settlement)
    cycle.pending.pay()
    cycle.pending.pay()
    assert observer.of("charged") == ([("charged", 5)] if own else [])
    assert observer.of("owes")[-1] == ("owes", 0)


def test_a_charge_without_redis_is_told_when_the_broker_has_it_and_never_again(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A direct event that waits had to wait once, however often it is tried."""
    answers: Any = Answers(*[SettleOutcome.RECOVERING] * 3)
    answers.broker_away = True
    cycle, observer = lifecycle(answers, monkeypatch), Noted()
    vars(cycle.runtime)["observer"] = observer
    cycle.succeed(run)
    cycle.pending.pay()
    assert observer.of("charged", "published") == [("published", Published.UNCONFIRMED, 1)]
    answers.broker_away = False
    cycle.pending.pay()
    cycle.pending.pay()
    assert observer.of("charged", "published")[1:] == [("published", Published.CONFIRMED, 1), ("charged", 5)]


def test_an_event_that_waits_counts_as_such_once_and_again_when_the_broker_has_it(
    events: Events,
    broker: Broker,
    pending: Pending,
) -> None:
    observer = Noted()
    vars(events._runtime)["observer"] = observer
    for number in range(3):
        events.publish("acme", b"%d" % number, f"{number}-0")
    pending.pay()
    broker.confirms = 2
    pending.pay()
    assert observer.told == [("published", Published.UNCONFIRMED, 1)] * 3 + [("published", Published.CONFIRMED, 2)]
    broker.confirms = 9
    pending.pay()
    events.publish("acme", b"4", "4-0")
    assert observer.told[4:] == [("published", Published.CONFIRMED, 1)] * 2 + [("confirmed_after",)]


@pytest.mark.parametrize("outcome", Outcome)
def test_a_delivery_that_reserved_ended_as_its_task_event_says(run: Run, outcome: Outcome) -> None:
    run.outcome = outcome
    fields = of_run(run)
    told = ended_as(run, None, None)
    assert (None if fields is None else fields[OUTCOME_FIELD]) == (None if told is None else told.value)


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (FAILURE, EXHAUSTED),
        (FAILURE, ValueError()),
        (IGNORED, Parked("acme", "page", 5)),
        (IGNORED, Ignore("put off")),
        (RETRY, None),
        (None, None),
    ],
)
def test_a_delivery_that_reserved_nothing_ended_as_its_task_event_says(
    app: celery.Celery, state: str | None, outcome: object
) -> None:
    task = capture(app)
    task.request_stack.push(Context())
    fields = of_refusal(task, ("acme",), {}, state, outcome)
    told = ended_as(None, state, outcome)
    assert (None if fields is None else fields[OUTCOME_FIELD]) == (None if told is None else told.value)
