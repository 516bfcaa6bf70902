"""A success whose bucket is lost, being rebuilt, or away for a lease is charged by a direct event (L3, L4)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from billing.core.clock import SystemClock
from billing.core.errors import Unreachable
from billing.credits.values import RenewOutcome, ReserveOutcome, ReserveReply, SettleOutcome
from billing.task.outcome import Outcome
from billing.task.run import Run
from tests.unit.test_lifecycle import Answers, lifecycle, run

__all__ = ["run"]


@pytest.mark.parametrize("refused", [SettleOutcome.RECOVERING, SettleOutcome.UNKNOWN_CLIENT, SettleOutcome.CORRUPT])
def test_l3_a_success_whose_bucket_is_lost_is_charged_before_its_message_is_acked(
    run: Run, monkeypatch: pytest.MonkeyPatch, refused: SettleOutcome
) -> None:
    """Given a bucket that is lost, when a run succeeds, then one direct event is out, and Redis is asked no more."""
    answers = Answers(refused)
    cycle = lifecycle(answers, monkeypatch)
    cycle.renewal.add(run)

    cycle.succeed(run)

    (body,) = answers.published
    assert b'"epoch":0' in body
    assert answers.settlement_ids[0].encode() in body
    assert (run.outcome, run.credits_charged) == (Outcome.LATE, 5)
    assert run in cycle.renewal._runs.values()
    cycle.pending.pay()
    assert (answers.released, len(answers.published), len(answers.settlement_ids)) == (["a"], 1, 1)
    assert not cycle.renewal._runs


def test_l3_a_success_whose_lease_may_have_run_out_is_charged_before_its_message_is_acked(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a Redis that was away for a lease, so that the hold may be gone, then one direct event is out at once.

    Kept instead, the charge would be known to this process alone, which may be killed.
    """
    answers = Answers(Unreachable("away"), Unreachable("away"))
    cycle = lifecycle(answers, monkeypatch)
    run.held_until = cycle.runtime.clock.monotonic()
    answers.broker_away = True
    cycle.succeed(run)
    assert (run.outcome, answers.published) == (Outcome.PENDING, [])

    answers.broker_away = False
    cycle.pending.pay()

    assert (run.outcome, run.credits_charged, len(answers.published)) == (Outcome.LATE, 5, 1)
    assert len(set(answers.settlement_ids)) == 1


@pytest.mark.parametrize(("renewed", "charged"), [(RenewOutcome.RENEWED, 0), (RenewOutcome.GONE, 1)])
def test_l3_a_lease_is_counted_from_when_it_was_confirmed_last(
    run: Run, monkeypatch: pytest.MonkeyPatch, renewed: RenewOutcome, charged: int
) -> None:
    """Given a hold that was reserved a lease ago, then only a renewal since has its settle wait for Redis."""
    answers: Any = Answers(Unreachable("away"))
    answers.reserve = lambda _hold, **_: ReserveReply(outcome=ReserveOutcome.HELD, required=5, held=5)
    answers.renew_each = lambda items: [renewed for _ in items]
    cycle = lifecycle(answers, monkeypatch)
    clock = SimpleNamespace(now=SystemClock().now, monotonic=lambda: 100.0)
    vars(cycle.runtime)["clock"] = clock
    cycle.hold(run)
    lease_seconds = cycle.runtime.settings.lease_seconds
    assert run.held_until == 100.0 + lease_seconds

    clock.monotonic = lambda: 100.0 + lease_seconds / 2
    cycle.keep([run])
    clock.monotonic = lambda: 100.0 + lease_seconds
    cycle.succeed(run)

    assert len(answers.published) == charged


def test_l4_a_time_limit_that_comes_upon_a_direct_charge_leaks_no_hold(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given an interruption right as the hold of a charged run is kept, then it is charged again, and given back."""
    answers = Answers(SettleOutcome.RECOVERING, SettleOutcome.RECOVERING)
    cycle = lifecycle(answers, monkeypatch)
    cycle.renewal.add(run)

    def interrupted(_: Run) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cycle.releases, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cycle.succeed(run)
    assert run.outcome is Outcome.PENDING

    cycle.pending.pay()

    assert (run.outcome, run.credits_charged, len(set(answers.published))) == (Outcome.LATE, 5, 1)
    assert (answers.released, len(cycle.renewal._runs)) == (["a"], 0)


def test_l3_a_success_that_neither_redis_nor_the_broker_takes_is_kept(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a lost bucket and a broker that is away, then the charge is tried again at both, until one has it."""
    answers = Answers(*[SettleOutcome.RECOVERING] * 3)
    answers.broker_away = True
    cycle = lifecycle(answers, monkeypatch)

    cycle.succeed(run)
    cycle.pending.pay()
    assert (run.outcome, answers.published) == (Outcome.PENDING, [])
    answers.broker_away = False
    cycle.pending.pay()

    assert (run.outcome, len(answers.published), len(set(answers.settlement_ids))) == (Outcome.LATE, 1, 1)
